"""What is found out about students while they serve, and what is done by hand, in the database."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from store.database.database import Database
from store.database.records import record
from store.jsontext import to_json
from store.records import (
    Action,
    Comparison,
)


def write_comparisons(db: Database, comparisons: Sequence[Comparison]) -> None:
    """Adds comparisons. One of the same trace and kind is replaced: no trace counts twice."""
    with db.transaction():
        for kind, group in groupby(sorted(comparisons, key=attrgetter("kind")), attrgetter("kind")):
            found = list(group)
            db.execute("delete_comparisons", kind=kind, ids=[c.trace_id for c in found])
            db.execute("insert_comparisons", rows=to_json(found).decode())


def comparisons_of_student(db: Database, student_id: str) -> list[Comparison]:
    """What was found out about a student live, oldest first."""
    rows = db.query("comparisons_of_student", student_id=student_id)
    return [record(Comparison, row) for row in rows]


def append_action(db: Database, action: Action) -> None:
    """Appends to the history of what was done by hand."""
    db.execute("insert_actions", rows=to_json([action]).decode())


def actions_of_task(db: Database, task: str, limit: int = 20) -> list[Action]:
    """What was done to a task by hand, newest first."""
    return [record(Action, row) for row in db.query("actions_of_task", task=task, limit=limit)]


def paused_tasks(db: Database) -> set[str]:
    """The tasks that are paused by hand."""
    return {row["task"] for row in db.query("paused_tasks")}
