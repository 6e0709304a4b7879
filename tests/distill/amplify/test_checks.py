"""The checks of synthetic inputs and answers, as tables."""

from __future__ import annotations

import pytest

from distill.amplify.checks import (
    Fault,
    answer_fault,
    input_fault,
)
from distill.amplify.policy import LengthRange
from distill.dataset.answers import Answers, describe
from tests.helpers.demo_rows import a_policy

POLICY = a_policy(
    input_length_range=LengthRange(minimum=3, maximum=20),
    output_length_range=LengthRange(minimum=2, maximum=40),
)
LABELS = describe(["red", "blue"] * 20)
OBJECTS = describe([f'{{"id": "{i}", "total": {i}}}' for i in range(20)])
PROSE = describe([f"Dear customer number {i}, thank you." for i in range(20)])


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
def test_the_fault_of_a_synthetic_input(text: str, fault: Fault | None) -> None:
    assert input_fault(text, POLICY) == fault


@pytest.mark.parametrize(
    ("answers", "text", "finish_reason", "fault"),
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
def test_the_fault_of_a_synthetic_answer(
    answers: Answers, text: str | None, finish_reason: str, fault: Fault | None
) -> None:
    assert answer_fault(text, finish_reason, answers=answers, policy=POLICY) == fault


def test_a_label_is_not_rejected_while_new_ones_are_to_be_expected() -> None:
    """With labels seen once, the next real answer may well be a new one."""
    open_set = describe([f"label-{i % 30}" for i in range(60)] + [f"rare-{i}" for i in range(10)])
    assert answer_fault("label-31", "stop", answers=open_set, policy=POLICY) is None


def test_an_apology_among_labels_neither_passes_nor_lets_invented_labels_pass() -> None:
    apology = "I am sorry, " * 10
    answers = describe(["red", "blue", "green"] * 133 + [apology])
    wide = a_policy(
        input_length_range=LengthRange(minimum=0, maximum=999),
        output_length_range=LengthRange(minimum=0, maximum=999),
    )
    for text in (apology, "purple"):
        fault = answer_fault(text, "stop", answers=answers, policy=wide)
        assert fault == Fault.OTHER_LABEL
    assert answer_fault("green", "stop", answers=answers, policy=wide) is None


def test_json_objects_may_have_any_known_set_of_keys() -> None:
    answers = describe(['{"intent": "a"}', '{"intent": "a", "slot": 1}'] * 20)
    assert answer_fault('{"intent": "b"}', "stop", answers=answers, policy=POLICY) is None
    assert answer_fault('{"slot": 2}', "stop", answers=answers, policy=POLICY) == Fault.OTHER_KEYS


def test_objects_pass_where_all_real_answers_are_lists() -> None:
    answers = describe([f"[{i}]" for i in range(20)])
    assert answer_fault('{"a": 1}', "stop", answers=answers, policy=POLICY) is None
