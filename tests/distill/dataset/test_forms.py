"""Which forms the teacher's answers have, and that a student's answer of another is not served."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distill.dataset.forms import MAX_FORMS, forms_of
from distill.dataset.rows import Row
from store.chat.student_wire import StudentAnswer, fault_of
from store.records import (
    Forms,
    OutputKind,
    Reason,
)
from tests.helpers.student_samples import rows

BASE = rows(1, seed=1)[0]


def answered(*targets: str) -> list[Row]:
    return [replace(BASE, target=target) for target in targets]


@pytest.mark.parametrize(
    ("targets", "output", "forms"),
    [
        (["yes", "no", " yes\n"], "label", Forms(labels=["no", "yes"])),
        (['{"b": 1, "a": 2}', '{"a": 3}', "[1]"], "json", Forms(keys=[["a"], ["a", "b"]])),
        (["one thing", "another"], "text", Forms()),
        (["not JSON after all"], "json", Forms()),
        ([str(n) for n in range(MAX_FORMS + 1)], "label", Forms()),
    ],
)
def test_the_forms_of_answers(targets: list[str], output: OutputKind, forms: Forms) -> None:
    assert forms_of(answered(*targets), output) == forms


@pytest.mark.parametrize(
    ("text", "output", "forms", "fault"),
    [
        ("yes", "label", Forms(labels=["no", "yes"]), None),
        ("yes ", "label", Forms(labels=["no", "yes"]), None),
        ("yess", "label", Forms(labels=["no", "yes"]), Reason.STUDENT_MALFORMED),
        ("anything", "label", Forms(), None),
        ("anything", "label", None, None),
        ('{"b": 1, "a": 2}', "json", Forms(keys=[["a", "b"]]), None),
        ('{"a": 2}', "json", Forms(keys=[["a", "b"]]), Reason.STUDENT_MALFORMED),
        ('{"a": 2, "b": 3, "c": 4}', "json", Forms(keys=[["a", "b"]]), Reason.STUDENT_MALFORMED),
        ("[1, 2]", "json", Forms(keys=[["a", "b"]]), None),
        ('{"a": 2}', "json", Forms(), None),
        ("a", "json", Forms(), Reason.STUDENT_MALFORMED),
        ("yess", "text", Forms(labels=["no", "yes"]), None),
    ],
)
async def test_another_form_is_not_served(
    text: str, output: OutputKind, forms: Forms | None, fault: Reason | None
) -> None:
    answer = StudentAnswer(
        text=text, signals=None, finish_reason="stop", input_tokens=1, output_tokens=1
    )
    found = await fault_of(answer, output=output, request={}, forms=forms)
    assert found == fault
