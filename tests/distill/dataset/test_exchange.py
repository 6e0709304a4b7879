"""From a row of the traces table to a lesson: decoding, damaged columns, audits and corrections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distill.dataset.exchange import lesson_of
from distill.dataset.rows import choose_rows
from store.settings.tasks import SplitSettings
from tests.helpers.demo_rows import an_exchange


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input_messages": "{torn"}, "not_text"),
        ({"input_messages": '{"role": "user"}'}, "not_text"),
        ({"input_messages": '[{"role": "user", "content": "a"}, 5]'}, "not_text"),
        ({"output_messages": "[1]"}, "no_answer"),
        ({"output_messages": "{torn"}, "no_answer"),
        ({"request_params": "{torn"}, "not_text"),
        ({"request_params": "[]"}, ""),
        ({"tool_definitions": "{torn"}, "not_text"),
        ({"tool_definitions": '{"type": "function"}'}, "tools"),
    ],
)
def test_a_damaged_column_makes_one_exchange_unusable_and_ends_no_run(
    changes: dict[str, Any], reason: str
) -> None:
    damaged, sound = an_exchange("damaged", **changes), an_exchange("sound")
    assert lesson_of(damaged).reason == reason
    selection = choose_rows([damaged, sound], SplitSettings())
    assert len(selection.rows) == (1 if reason else 2)
    assert selection.left_out == ({reason: 1} if reason else {})


def test_the_model_of_the_parameters_stands_in_for_a_missing_one() -> None:
    assert an_exchange(request_model=None).model == "gpt-big"
    assert an_exchange(request_model=None, request_params="{}").model == ""


def test_an_audit_teaches_the_teachers_answer_and_a_correction_the_clients() -> None:
    served = an_exchange("a", "the student's answer", served_by="student")
    assert lesson_of(served).reason == "not_from_teacher"
    for kind, target in (("audit", "refund"), ("correction", "billing")):
        lesson = lesson_of(replace(served, kind=kind, replacement=target))  # type: ignore[arg-type]
        assert (lesson.target, lesson.reason) == (target, "")
    assert lesson_of(replace(served, kind="audit", replacement=" ")).reason == "no_answer"
