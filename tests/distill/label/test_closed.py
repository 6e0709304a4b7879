from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.label.closed import MAX_CHOICES, ClosedSet


def test_a_label_is_written_as_the_teacher_mostly_does() -> None:
    closed = ClosedSet.of("label", ["Yes ", "Yes", "no", "Yes"])

    assert closed.choices == (("Yes", "no"),)
    assert [closed.written([place]) for place in (0, 1)] == ["Yes", "no"]
    assert closed.places(" no\n") == [1]
    assert closed.places("maybe") is None


@pytest.mark.parametrize(
    "dump",
    [
        json.dumps,
        lambda value: json.dumps(value, separators=(",", ":")),
        lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        lambda value: json.dumps(value, indent=4, ensure_ascii=True),
    ],
)
def test_json_is_laid_out_as_the_teacher_does(dump) -> None:  # type: ignore[no-untyped-def]
    answers = [{"b": "ü", "a": 1}, {"b": "o", "a": None}, {"b": "ü", "a": [1, {"x": True}]}]
    targets = [dump(answer) for answer in answers]
    closed = ClosedSet.of("json", targets)

    assert closed.fields == ("b", "a")
    assert [closed.written(closed.places(target) or []) for target in targets] == targets


def test_a_key_that_some_answers_lack_is_a_choice() -> None:
    targets = ['{"a": 1}', '{"a": 2, "why": "late"}']
    closed = ClosedSet.of("json", targets)

    assert [closed.written(closed.places(target) or []) for target in targets] == targets


def test_an_answer_with_an_unknown_key_is_not_of_the_set() -> None:
    closed = ClosedSet.of("json", ['{"a": 1}'])

    assert closed.places('{"a": 1, "b": 2}') is None
    assert closed.places("[1]") is None
    assert closed.places("{") is None


@given(st.lists(st.lists(st.sampled_from(["red", "blue"]), max_size=2), min_size=1, max_size=9))
def test_lists_are_chosen_whole(answers: list[list[str]]) -> None:
    targets = [json.dumps(answer) for answer in answers]
    closed = ClosedSet.of("json", targets)

    assert [closed.written(closed.places(target) or []) for target in targets] == targets


def test_too_many_values_are_no_closed_set() -> None:
    with pytest.raises(ValueError, match="no closed set"):
        ClosedSet.of("label", [str(n) for n in range(MAX_CHOICES + 1)])
