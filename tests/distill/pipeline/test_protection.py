"""Protected labels that no student could be proven on: said before anything is paid for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from distill.dataset.answers import Answers
from distill.dataset.rows import Row, Selection
from distill.pipeline.protection import labels_of_rows, protection_shortage
from store.settings.tasks import GateSettings, TaskSettings
from tests.helpers.demo_rows import a_row

LABELS = Answers(kind="label", reason="")


def rows(label: str, n: int, **changes: Any) -> list[Row]:
    one = a_row("ticket-triage", label, target=label)
    names = [f"{label} {k}" for k in range(n)]
    return [
        replace(one, trace_id=name, input_hash=name, split="heldout", **changes) for name in names
    ]


def settings(*protect: str, **changes: Any) -> TaskSettings:
    return TaskSettings.model_validate({"gate": {"protect": list(protect)}, **changes})


def test_too_few_groups_of_a_protected_label_end_the_run_before_anything_is_paid() -> None:
    enough, few = [*rows("no", 300), *rows("yes", 31)], [*rows("no", 300), *rows("yes", 30)]
    assert protection_shortage(Selection(few), LABELS, settings(), 1) == ""
    assert protection_shortage(Selection(enough), LABELS, settings("yes"), 1) == ""
    told = protection_shortage(Selection(few), LABELS, settings("yes"), 1)
    assert told == (
        "protected yes: 30 held-out groups have it, but a recall of 0.85 needs 31 even without a "
        "disagreement"
    )
    assert "needs" in protection_shortage(Selection(enough), LABELS, settings("yes"), 2)


def test_rows_of_one_conversation_are_one_group_of_a_protected_label() -> None:
    together = [*rows("no", 300), *rows("yes", 40, group=7)]
    told = protection_shortage(Selection(together), LABELS, settings("yes"), 1)
    assert "protected yes: 1 held-out groups have it" in told


def test_a_protected_label_that_the_sample_of_rows_misses_is_blamed_on_its_size() -> None:
    many = Selection([*rows("a no", 300), *rows("yes", 60)])
    told = protection_shortage(many, LABELS, settings("yes", evaluate={"max_rows": 100}), 1)
    assert "than the 100 of evaluate.max_rows" in told
    assert not protection_shortage(many, LABELS, settings("yes"), 1)


@pytest.mark.parametrize(
    ("kind", "says"),
    [("label", "no answer of the teacher has it"), ("text", "answers in free text have no labels")],
)
def test_an_unknown_protected_label_is_said(kind: Any, says: str) -> None:
    told = protection_shortage(
        Selection(rows("no", 300)), Answers(kind=kind, reason=""), settings("Yes"), 1
    )
    assert told.startswith("protected Yes: ")
    assert says in told


def test_labels_of_json_rows_are_values_of_closed_fields_and_what_is_protected() -> None:
    targets = [json.dumps({"urgent": k % 2 == 0, "note": f"note {k}"}) for k in range(4)]
    found = labels_of_rows(
        [replace(a_row("ticket-triage", t), target=t) for t in targets],
        Answers(kind="json", reason="", fields=frozenset({"urgent"})),
        GateSettings(protect=["note=note 2", "note=none"]),
    )
    assert found == {"urgent=true", "urgent=false", "note=note 2"}


def test_long_answers_are_no_labels_that_a_certificate_names() -> None:
    apology = "I am sorry, but I can only name the team that a request is for. " * 4
    found = labels_of_rows([*rows("no", 1), *rows(apology, 1)], LABELS, GateSettings())
    assert found == {"no"}
