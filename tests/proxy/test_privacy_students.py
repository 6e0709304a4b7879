"""Students learn from redacted texts: what they make of a placeholder is nothing for a client."""

from __future__ import annotations

import orjson
import pytest
from pydantic import TypeAdapter

from distill.dataset.answers import answers_of
from distill.monitor.evidence import EvidenceTracker
from store.chat.student_wire import StudentAnswer, fault_of
from store.database.traces import RequestOutcome
from store.privacy.settings import PrivacySettings
from store.records import (
    Forms,
    OutputKind,
    Reason,
    TermsOfService,
)
from tests.distill.dataset.test_answers import answered
from tests.distill.monitor.test_evidence import BEGAN, SETTINGS, promoted, unsure


@pytest.mark.parametrize(
    ("text", "output", "forms", "placeholders", "fault"),
    [
        ("to <EMAIL>", "text", Forms(placeholders=["<EMAIL>"]), (), Reason.STUDENT_REDACTED),
        ("to <EMAIL>", "text", None, ("<EMAIL>",), Reason.STUDENT_REDACTED),
        ('{"a":"<EMAIL>"}', "json", Forms(), ("<EMAIL>",), Reason.STUDENT_REDACTED),
        ("<EMAIL>", "label", Forms(labels=["<EMAIL>"]), ("<EMAIL>",), Reason.STUDENT_REDACTED),
        ("to <EMAIL>", "text", Forms(), (), None),
        ("to email", "text", Forms(placeholders=["<EMAIL>"]), ("<PHONE>",), None),
    ],
)
async def test_answers_with_placeholders_are_not_served(
    text: str,
    output: OutputKind,
    forms: Forms | None,
    placeholders: tuple[str, ...],
    fault: Reason | None,
) -> None:
    answer = StudentAnswer(text, None, "stop", 1, 1)
    found = await fault_of(
        answer, TermsOfService(output=output, forms=forms), {}, placeholders=placeholders
    )
    assert found == fault


def test_the_forms_that_a_student_is_certified_with_know_the_placeholders() -> None:
    rows = answered("good", "to <EMAIL>")
    answers = answers_of(rows)
    forms = answers.forms(("<EMAIL>",))
    assert forms.placeholders == ["<EMAIL>"]
    assert answers.forms().placeholders == []
    written = orjson.dumps(forms)
    assert TypeAdapter(Forms).validate_json(written) == forms


def test_the_placeholders_of_the_settings() -> None:
    settings = PrivacySettings.model_validate(
        {
            "redact": ["email", {"name": "badge", "pattern": "EMP", "replace": "[who]"}],
            "presidio": {"entities": ["PERSON"]},
        }
    )
    assert settings.placeholders == ("<EMAIL>", "[who]", "<PERSON>")
    assert PrivacySettings().placeholders == ()


def test_a_placeholder_is_no_fault_of_the_student() -> None:
    """It lowers the coverage, as doubt does, and takes nobody off a task as broken."""
    tracker = EvidenceTracker(promoted(), BEGAN, 0.95, SETTINGS)
    for number in range(60):
        held_back = {**_fields(unsure(number, same_input=False)), "reason": "student_redacted"}
        tracker.add_request(RequestOutcome(**held_back))  # type: ignore[arg-type]
    known = tracker.evidence()
    assert known.unsure.alarm
    assert not known.faults.alarm


def _fields(routed: RequestOutcome) -> dict[str, object]:
    return {name: getattr(routed, name) for name in RequestOutcome.__slots__}
