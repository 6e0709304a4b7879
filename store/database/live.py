"""What the evidence about a serving student is made of, in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from store.database.database import Database
from store.database.evidence import write_comparisons
from store.database.records import append_promotion, latest_promotions, record
from store.jsontext import to_json
from store.records import (
    Comparison,
    ComparisonKind,
    Promotion,
    TeacherCall,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """A logged request of a task, as far as it is evidence: who was asked, and what came of it."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A comparison without its texts."""

    trace_id: str
    kind: ComparisonKind
    agrees: bool
    servable: bool
    fault: str | None
    at: float  # when it was made
    begun: float  # when the request was
    input_hash: str = ""  # of the request


def staged_routed(db: Database) -> list[Routed]:
    """Of the segments that are being collected, oldest first: the requests that a student was asked
    for, and those that one in shadow or canary may be compared on.
    """
    return [record(Routed, row) for row in db.query("staged_routed")]


def findings_of_student(db: Database, student_id: str, since: float, limit: int) -> list[Finding]:
    """The newest comparisons of a student that were made after `since`, oldest first."""
    rows = db.query("findings_of_student", student_id=student_id, since=since, limit=limit)
    return [record(Finding, row) for row in reversed(rows)]


def tallies_of_student(
    db: Database, student_id: str, *, since: float, until: float, step_at: float
) -> list[dict[str, Any]]:
    """Comparisons of a student after `since` and before `until`, counted by kind.

    Rows of kind, n, servable, agreed, and the same three with `step_` of requests after `step_at`.
    """
    return db.query(
        "tallies_of_student", student_id=student_id, since=since, until=until, step_at=step_at
    )


def requests_of_student(db: Database, student_id: str, since: float, limit: int) -> list[Routed]:
    """The newest requests that a student was asked for, begun after `since`, oldest first."""
    rows = db.query("requests_of_student", student_id=student_id, since=since, limit=limit)
    return [record(Routed, row) for row in reversed(rows)]


def unaudited(db: Database, student_id: str, since: float) -> list[tuple[str, float]]:
    """(trace_id, end_time) of what a student served after `since`, unaudited, oldest first."""
    rows = db.query("unaudited", student_id=student_id, since=since)
    return [(row["trace_id"], row["end_time"]) for row in rows]


def trace(db: Database, trace_id: str) -> dict[str, Any] | None:
    """A logged request by its id, with the columns of the traces table; None when it is gone."""
    rows = db.query("trace", trace_id=trace_id)
    return rows[0] if rows else None


def write_findings(
    db: Database, comparisons: Sequence[Comparison], calls: Sequence[TeacherCall]
) -> None:
    """Adds comparisons, and what was paid for them, together."""
    with db.transaction():
        write_comparisons(db, comparisons)
        if comparisons:  # a trace may have been forgotten while its answer was waited for
            db.execute("blank_comparisons_of_gone", ids=[c.trace_id for c in comparisons])
        if calls:
            db.execute("insert_teacher_calls", rows=to_json(list(calls)).decode())


def follow_promotion(db: Database, promotion: Promotion, after: str) -> bool:
    """Appends a promotion if `after` is still the last one of its task. Returns whether it was."""
    with db.transaction():
        last = latest_promotions(db).get(promotion.task)
        if last is None or last.promotion_id != after:
            return False
        append_promotion(db, promotion)
        return True


def audits_since(db: Database, task: str, since: float) -> int:
    """How many audits of a task's students were made after `since`."""
    return int(db.query("audits_since", task=task, since=since)[0]["audits"])


def uncovered_teacher_traces(db: Database, task: str, since: float) -> int:
    """Whole answers of the teacher, new since `since`, without those that a student is ready to
    give: the requests of its shadow, and of the conversations beyond its share.
    """
    return int(db.query("uncovered_teacher_traces", task=task, since=since)[0]["traces"])


def retrain_asked(db: Database, task: str) -> bool:
    """Whether a run was asked for by hand since the last one began."""
    return bool(db.query("retrain_asked", task=task)[0]["asked"])
