"""Scorers: the score of each, the registry, and the choice for a kind of answers."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from distill.dataset.answers import describe
from distill.evaluate.scorers.registry import SCORERS, score
from distill.evaluate.scoring import Scorer, choose_scorer, scoring
from store.records import ScorerName
from store.settings.tasks import EvaluateSettings

AUTO = EvaluateSettings()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)
TEXT = st.text(max_size=20)


@pytest.mark.parametrize(
    ("teacher", "student", "agrees"),
    [
        ("refund", "refund", True),
        ("refund", " refund\n", True),
        ("caf\u00e9", "cafe\u0301", True),  # the same letter, composed and not
        ("refund", "Refund", False),
        ("refund", "refund.", False),
        ("two words", "two  words", False),
        ("refund", "", False),
    ],
)
def test_exact_compares_normal_texts(teacher: str, student: str, agrees: bool) -> None:
    assert score("exact", teacher, student) == float(agrees)


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 1.0),  # order of keys
        ({"a": 1, "b": 2}, {"a": 1}, 1 / 2),  # a missing key
        ({"a": 1}, {"a": 1, "b": 2}, 1 / 2),  # an extra key
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, 1 / 2),  # a wrong value
        ({"a": 1, "b": 2}, {"a": 1, "c": 2}, 1 / 3),  # a wrong key is missing and extra
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 9}}, 1 / 2),
        ({"a": {"b": 1}}, {"a.b": 1}, 0.0),
        ([1, 2, 3], [1, 3, 2], 1 / 3),  # by position
        ([1, 2], [1, 2, 3], 2 / 3),
        (["a"], {"0": "a"}, 0.0),
        ({"a": 1}, {"a": "1"}, 0.0),
        ({"a": 1}, {"a": 1.0}, 1.0),
        ({"a": True}, {"a": 1}, 0.0),
        ({"a": None}, {"a": False}, 0.0),
        ({"a": None}, {}, 0.0),
        ({}, {}, 1.0),
        ({}, [], 0.0),
        ({"a": []}, {"a": {}}, 0.0),
        ({"a": "caf\u00e9"}, {"a": "cafe\u0301"}, 1.0),
        ({"a": "x"}, {"a": " x"}, 0.0),
    ],
)
def test_json_is_scored_by_leaf(teacher: Any, student: Any, expected: float) -> None:
    assert score("json", json.dumps(teacher), json.dumps(student)) == pytest.approx(expected)


@pytest.mark.parametrize("student", ["", "refund", "{'a': 1}", '{"a": 1', '{"a": NaN}', "```{}```"])
def test_an_answer_that_is_no_json_scores_0(student: str) -> None:
    assert score("json", '{"a": 1}', student) == 0.0


def test_a_teacher_that_breaks_its_own_format_is_compared_as_text() -> None:
    assert score("json", "I cannot do that.", "I cannot do that.") == 1.0
    assert score("json", "I cannot do that.", '{"a": 1}') == 0.0


def test_a_deeply_nested_answer_is_scored_like_any_other() -> None:
    deep = '{"a":' * 900 + "1" + "}" * 900
    assert score("json", deep, deep) == 1.0
    assert score("json", '{"a": 1}', deep) == 0.0
    assert score("json", '{"a": 1}', "[" * 100_000) == 0.0


def test_text_is_similarity_with_white_space_folded() -> None:
    assert score("text", "one two\nthree", "one  two three ") == 1.0
    assert score("text", "abcd", "abcx") == pytest.approx(1 - 2 / 8)
    assert score("text", "abcd", "wxyz") == 0.0
    assert score("text", "abcd", "") == 0.0


@given(JSON, JSON)
@pytest.mark.slow
def test_json_scores_are_symmetric_and_within_bounds(left: Any, right: Any) -> None:
    one, other = json.dumps(left), json.dumps(right)
    assert score("json", one, one) == 1.0
    assert 0.0 <= score("json", one, other) == score("json", other, one) <= 1.0
    assert (score("json", one, other) == 1.0) == _strictly_equal(left, right)


@given(TEXT, TEXT)
def test_text_scores_are_within_bounds(left: str, right: str) -> None:
    assert score("text", left, left) == 1.0
    assert 0.0 <= score("text", left, right) <= 1.0


PARAGRAPH = "Dear customer,\n\nthank you for writing to us. " * 3


@pytest.mark.parametrize(
    ("targets", "name", "output"),
    [
        (['{"a": 1}', '{"a": 2}'], "json", "json"),
        (["[1]", "[2, 3]"], "json", "json"),
        (['{"a": 1}'] * 95 + ["sorry"] * 5, "json", "json"),
        (['{"a": 1}'] * 94 + ["sorry"] * 6, "exact", "label"),  # too few to be a format
        (["yes", "no"] * 10, "exact", "label"),
        ([f"label-{n % 77}" for n in range(200)], "exact", "label"),
        (["17", "4", "1999", "23", "42"], "exact", "text"),  # short, but each its own
        (["2024-01-05", "2023-11-30", "2022-02-28"], "exact", "text"),
        ([PARAGRAPH, PARAGRAPH + "x", PARAGRAPH + "y"], "text", "text"),
        (["two\nlines", "one", "three\nlines\nhere"], "text", "text"),
    ],
)
def test_the_scorer_follows_the_answers(targets: list[str], name: str, output: str) -> None:
    scorer = choose_scorer(describe(targets), AUTO)
    assert (scorer.name, scorer.output) == (name, output)
    assert str(len(targets)) in scorer.reason


def test_each_scorer_has_its_own_bar() -> None:
    bars = {
        name: choose_scorer(describe(["a"]), EvaluateSettings(scorer=name)).agree_at  # type: ignore[arg-type]
        for name in ("exact", "json", "text", "judge")
    }
    assert bars == {"exact": 1.0, "json": 1.0, "text": 0.8, "judge": 1.0}


def test_every_name_of_a_scorer_is_registered_and_accepted_by_the_settings() -> None:
    assert set(SCORERS) == set(get_args(ScorerName))
    for name in SCORERS:
        assert EvaluateSettings(scorer=name).scorer == name
    with pytest.raises(ValidationError):
        EvaluateSettings(scorer="nearly")  # type: ignore[arg-type]


def test_a_set_scorer_overrides_the_fitting_one() -> None:
    settings = EvaluateSettings(scorer="text", agree_at=0.6)
    scorer = choose_scorer(describe(['{"a": 1}'] * 5), settings)
    assert (scorer.name, scorer.agree_at) == ("text", 0.6)
    assert scorer.output == "json"  # the answers are still JSON, and the student's must be
    assert "evaluate.scorer" in scorer.reason


def test_a_score_equal_to_the_bar_agrees() -> None:
    scorer = Scorer("text", 0.8, "text", "")
    assert scorer.agrees(0.8)
    assert not scorer.agrees(0.799)


@pytest.mark.parametrize(
    ("name", "teacher", "student", "expected"),
    [("exact", "a", "b", 0.0), ("json", "[1, 2]", "[1, 3]", 0.5), ("text", "abcd", "abcx", 0.75)],
)
async def test_any_scorer_scores_a_pair_in_the_same_way(
    name: Any, teacher: str, student: str, expected: float
) -> None:
    scorer = Scorer(name, 1.0, "text", "")
    assert await scoring(scorer)(teacher, student, []) == expected


async def test_a_paid_scorer_needs_a_paid_scoring() -> None:
    asked = []

    async def judge(*pair: Any) -> float:
        asked.append(pair)
        return 1.0

    messages = [{"role": "user", "content": "?"}]
    assert await scoring(Scorer("judge", 1.0, "text", ""), judge)("a", "b", messages) == 1.0
    assert asked == [("a", "b", messages)]
    assert await scoring(Scorer("exact", 1.0, "text", ""), judge)("a", "b", messages) == 0.0
    with pytest.raises(ValueError, match="needs a judge"):
        scoring(Scorer("judge", 1.0, "text", ""))


def _strictly_equal(left: Any, right: Any) -> bool:
    """Equality that tells True from 1, as JSON does."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_strictly_equal(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_strictly_equal, left, right))
    return type(left) is type(right) and bool(left == right)
