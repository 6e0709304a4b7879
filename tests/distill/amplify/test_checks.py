"""The checks of synthetic inputs and answers, as tables."""

from __future__ import annotations

import pytest

from distill.amplify.checks import (
    AnswerForm,
    Fault,
    answer_fault,
    form_of,
    input_fault,
    share_seen_once,
)
from distill.amplify.policy import LengthRange
from tests.helpers.demo_rows import a_policy

POLICY = a_policy(
    input_length_range=LengthRange(minimum=3, maximum=20),
    output_length_range=LengthRange(minimum=2, maximum=40),
)
LABELS = form_of(["red", "blue"] * 20)
OBJECTS = form_of([f'{{"id": "{i}", "total": {i}}}' for i in range(20)])
PROSE = form_of([f"Dear customer number {i}, thank you." for i in range(20)])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("where is it?", None),
        ("abc", None),
        ("a" * 20, None),
        ("ab", Fault.INPUT_LENGTH),
        ("a" * 21, Fault.INPUT_LENGTH),
        ("", Fault.EMPTY_INPUT),
        (" \n ", Fault.EMPTY_INPUT),
    ],
)
def test_inputs(text: str, fault: Fault | None) -> None:
    assert input_fault(text, POLICY) == fault


@pytest.mark.parametrize(
    ("form", "text", "finish_reason", "fault"),
    [
        (LABELS, "red", "stop", None),
        (LABELS, " red\n", "stop", None),
        (LABELS, "green", "stop", Fault.OTHER_LABEL),
        (LABELS, "It is red.", "stop", Fault.OTHER_LABEL),
        (LABELS, "red", "length", Fault.CUT_OFF),
        (LABELS, "", "stop", Fault.NO_TEXT),
        (LABELS, None, "tool_calls", Fault.NO_TEXT),
        (OBJECTS, '{"id": "x", "total": 1}', "stop", None),
        (OBJECTS, '{"total": null, "id": null}', "stop", None),
        (OBJECTS, '{"id": "x"}', "stop", Fault.OTHER_KEYS),
        (OBJECTS, '{"id": "x", "total": 1, "more": 2}', "stop", Fault.OTHER_KEYS),
        (OBJECTS, "[1, 2]", "stop", Fault.OTHER_KEYS),
        (OBJECTS, '{"id": "x", "tot', "stop", Fault.NOT_JSON),
        (OBJECTS, "12", "stop", Fault.NOT_JSON),
        (OBJECTS, f'{{"id": "{"x" * 40}", "total": 1}}', "stop", Fault.OUTPUT_LENGTH),
        (PROSE, "Dear customer, hello.", "stop", None),
        (PROSE, "x" * 41, "stop", Fault.OUTPUT_LENGTH),
        (PROSE, "x", "stop", Fault.OUTPUT_LENGTH),
    ],
)
def test_answers(
    form: AnswerForm, text: str | None, finish_reason: str, fault: Fault | None
) -> None:
    assert answer_fault(text, finish_reason, form=form, policy=POLICY) == fault


def test_the_form_of_labels() -> None:
    assert AnswerForm("label", labels=frozenset({"red", "blue"})) == LABELS


def test_labels_that_are_still_being_discovered_are_not_closed() -> None:
    """With labels seen once, the next real answer may well be a new one."""
    targets = [f"label-{i % 30}" for i in range(60)] + [f"rare-{i}" for i in range(10)]
    assert form_of(targets) == AnswerForm("label")


def test_the_form_of_json() -> None:
    assert AnswerForm("json", key_sets=frozenset({frozenset({"id", "total"})})) == OBJECTS


def test_a_few_spoilt_answers_do_not_hide_json() -> None:
    targets = [f'{{"id": {i}}}' for i in range(99)]
    assert form_of([*targets, "I cannot help with that."]).kind == "json"


def test_json_objects_of_several_shapes_may_have_each() -> None:
    form = form_of(['{"intent": "a"}', '{"intent": "a", "slot": 1}'] * 20)
    assert answer_fault('{"intent": "b"}', "stop", form=form, policy=POLICY) is None
    assert answer_fault('{"slot": 2}', "stop", form=form, policy=POLICY) == Fault.OTHER_KEYS


def test_lists_have_no_keys() -> None:
    form = form_of([f"[{i}]" for i in range(20)])
    assert form == AnswerForm("json")
    assert answer_fault('{"a": 1}', "stop", form=form, policy=POLICY) is None


def test_repeated_prose_is_not_a_label() -> None:
    long = (
        "We are sorry for the delay and will send your order again within the next two days. " * 2
    )
    assert form_of([long] * 40).kind == "text"


def test_bare_numbers_are_labels_or_text_but_not_json() -> None:
    assert form_of(["1", "2", "3", "4", "5"] * 10).kind == "label"
    assert form_of([str(i) for i in range(50)]).kind == "text"


@pytest.mark.parametrize(
    ("values", "share"), [([], 1.0), (["a"], 1.0), (["a", "a"], 0.0), (["a", "a", "b", "c"], 0.5)]
)
def test_share_seen_once(values: list[str], share: float) -> None:
    assert share_seen_once(values) == share
