"""Comparisons and actions in the database: what goes in comes out, and nothing counts twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from store.database.actions import actions_of_task, append_action, paused_tasks
from store.database.comparisons import comparisons_of_student, write_comparisons
from store.database.database import Database
from store.settings.config import StoreSettings
from tests.helpers.samples import a_comparison, an_action


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "understudy.duckdb", StoreSettings()) as opened:
        yield opened


def test_comparisons_come_back_oldest_first(db: Database) -> None:
    first = a_comparison(at=1.0, fault="student_unsure", servable=False, student_output=None)
    second = a_comparison(at=2.0, student_id=first.student_id, kind="audit")
    other = a_comparison(at=1.5)
    write_comparisons(db, [second, other, first])

    assert comparisons_of_student(db, first.student_id) == [first, second]


def test_a_trace_counts_once_a_kind(db: Database) -> None:
    found = a_comparison()
    write_comparisons(db, [found])
    again = replace(found, agrees=False)
    audit = replace(found, kind="audit", at=found.at + 1)
    write_comparisons(db, [again, audit])

    assert comparisons_of_student(db, found.student_id) == [again, audit]


def test_nothing_to_write_is_fine(db: Database) -> None:
    write_comparisons(db, [])


def test_actions_come_back_newest_first(db: Database) -> None:
    first, second = an_action(at=1.0), an_action(at=2.0, command="promote", forced=True)
    for action in (first, second, an_action(task="other")):
        append_action(db, action)

    assert actions_of_task(db, "triage") == [second, first]
    assert actions_of_task(db, "triage", limit=1) == [second]


@pytest.mark.parametrize(
    ("commands", "paused"),
    [
        (["pause"], True),
        (["pause", "resume"], False),
        (["pause", "resume", "pause"], True),
        (["pause", "retrain"], True),
        (["demote"], False),
    ],
)
def test_the_last_pause_or_resume_holds(db: Database, commands: list[str], paused: bool) -> None:
    for at, command in enumerate(commands):
        append_action(db, an_action(at=float(at), command=command))
    append_action(db, an_action(task="other", command="resume"))

    assert paused_tasks(db) == ({"triage"} if paused else set())
