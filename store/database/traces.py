"""Queries on the table of traces: what a run learns from, and what a student was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from store.database.database import Database
from store.database.rows import record


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutcome:
    """How a logged request of a task went: whether a student was asked, and who answered."""

    trace_id: str
    task: str
    student_id: str | None  # set when the student was asked, also on fallback
    served_by: str | None
    reason: str  # a Reason
    start_time: float
    end_time: float
    whole: bool  # the client got the whole answer, with status 200
    input_hash: str = ""
    has_texts: bool = True  # False: no chat, or the client opted out; nothing can be compared on it


def task_counts(db: Database) -> dict[str, int]:
    """Every task tag that was seen, in alphabetical order, with its number of requests."""
    return {row["task"]: row["traces"] for row in db.query("task_counts")}


def trace_by_id(db: Database, trace_id: str) -> dict[str, Any] | None:
    """A logged request, with the columns of the traces table; None when it was deleted."""
    rows = db.query("trace_by_id", trace_id=trace_id)
    return rows[0] if rows else None


def traces_of_task(db: Database, task: str, limit: int) -> list[dict[str, Any]]:
    """The newest whole answers of the teacher for a task, newest first, as rows of `traces`."""
    return db.query("traces_of_task", task=task, limit=limit)


def traces_of_fingerprints(
    db: Database, task: str, fingerprints: Sequence[str], limit: int
) -> list[dict[str, Any]]:
    """The same, of these fingerprints only."""
    return db.query(
        "traces_of_fingerprints", task=task, fingerprints=list(fingerprints), limit=limit
    )


def traffic_by_fingerprint(
    db: Database, task: str, *, requests: int, newest: int, shapes: int
) -> list[dict[str, Any]]:
    """The newest `requests` of a task by fingerprint, whoever answered: at most `shapes` rows.

    `recent` of each: how many are among the `newest`. Each row carries its last request's texts.
    """
    return db.query(
        "traffic_by_fingerprint", task=task, requests=requests, newest=newest, shapes=shapes
    )


def audited_traces(db: Database, task: str, limit: int) -> list[dict[str, Any]]:
    """The newest traces that a student answered and an audit asked the teacher again, with the
    teacher's answer as `teacher_output`, given at `answered_at`."""
    return db.query("audited_traces", task=task, limit=limit)


def corrected_traces(db: Database, task: str, limit: int) -> list[dict[str, Any]]:
    """The newest traces that clients corrected, each with its newest `correction`, from
    `answered_at`."""
    return db.query("corrected_traces", task=task, limit=limit)


def new_teacher_traces(db: Database, task: str, since: float, *, asked_since: float = 0.0) -> int:
    """How many whole answers of the teacher are new since a time: to requests after `since`, or
    imported after it.

    `asked_since`: count only requests made after this time, whenever they were imported.
    """
    rows = db.query("new_teacher_traces", task=task, since=since, asked_since=asked_since)
    return int(rows[0]["traces"])


def uncovered_teacher_traces(db: Database, task: str, since: float) -> int:
    """Whole answers of the teacher, new since `since`, without those that a student is ready to
    give: the requests of its shadow, and of the conversations beyond its share.
    """
    return int(db.query("uncovered_teacher_traces", task=task, since=since)[0]["traces"])


def requests_of_student(
    db: Database, student_id: str, since: float, limit: int
) -> list[RequestOutcome]:
    """The newest requests that a student was asked for, begun after `since`, oldest first."""
    rows = db.query("requests_of_student", student_id=student_id, since=since, limit=limit)
    return [record(RequestOutcome, row) for row in reversed(rows)]


def unaudited_traces(db: Database, student_id: str, since: float) -> list[tuple[str, float]]:
    """(trace_id, end_time) of what a student served after `since` unaudited, oldest first."""
    rows = db.query("unaudited_traces", student_id=student_id, since=since)
    return [(row["trace_id"], row["end_time"]) for row in rows]


def confidences_of_student(db: Database, task: str, student_id: str) -> dict[str, float | None]:
    """How sure a student was of each request that it was asked, by trace id."""
    rows = db.query("confidences_of_student", task=task, student=student_id)
    return {row["trace_id"]: row["confidence"] for row in rows}
