"""Queries on live comparisons: what shadow, audits and feedback say of a serving student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Annotated

from pydantic import Field

from store.database.database import Database
from store.database.rows import json_rows, record
from store.database.runs import append_teacher_calls
from store.records import Comparison, ComparisonKind, TeacherCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonOutcome:
    """A comparison, without its texts where they are not asked for."""

    trace_id: str
    kind: ComparisonKind
    agrees: bool
    servable: bool
    fault: str | None
    at: float  # when it was made
    begun: float  # when the request was
    input_hash: str = ""  # of the request
    teacher_output: str | None = None
    student_output: str | None = None


@dataclass(frozen=True, slots=True)
class ComparisonCounts:
    """Live requests that student and teacher both answered."""

    n: int
    servable: Annotated[int, Field(description="of these, how many the proxy would serve")]
    agreed: Annotated[int, Field(description="of the servable ones")]


@dataclass(frozen=True, slots=True, kw_only=True)
class KindCounts:
    """A student's comparisons of one kind."""

    kind: ComparisonKind
    all: ComparisonCounts
    of_step: ComparisonCounts  # of requests since the present step began


def write_comparisons(db: Database, comparisons: Sequence[Comparison]) -> None:
    """Adds comparisons. One of the same trace and kind is replaced: no trace counts twice."""
    with db.transaction():
        for kind, group in groupby(sorted(comparisons, key=attrgetter("kind")), attrgetter("kind")):
            same = list(group)
            db.execute("delete_comparisons", kind=kind, ids=[c.trace_id for c in same])
            db.execute("insert_comparisons", rows=json_rows(same))


def write_paid_comparisons(
    db: Database, comparisons: Sequence[Comparison], calls: Sequence[TeacherCall]
) -> None:
    """Adds comparisons together with the teacher calls that were paid for them."""
    with db.transaction():
        write_comparisons(db, comparisons)
        if comparisons:  # a trace may have been forgotten while the answer was on its way
            db.execute("blank_comparisons_of_deleted", ids=[c.trace_id for c in comparisons])
        append_teacher_calls(db, calls)


def outcomes_of_student(
    db: Database, student_id: str, since: float, limit: int, *, texts: bool = False
) -> list[ComparisonOutcome]:
    """The newest comparisons of a student that were made after `since`, oldest first.

    `texts`: with both answers.
    """
    rows = db.query(
        "outcomes_of_student", student_id=student_id, since=since, limit=limit, texts=texts
    )
    return [record(ComparisonOutcome, row) for row in reversed(rows)]


def counts_of_student(
    db: Database, student_id: str, *, since: float, until: float, step_at: float
) -> list[KindCounts]:
    """The comparisons of a student after `since` and before `until`, counted by kind.

    `step_at`: when the present step began.
    """
    rows = db.query(
        "counts_of_student", student_id=student_id, since=since, until=until, step_at=step_at
    )
    return [
        KindCounts(
            kind=row["kind"],
            all=ComparisonCounts(row["n"], row["servable"], row["agreed"]),
            of_step=ComparisonCounts(row["step_n"], row["step_servable"], row["step_agreed"]),
        )
        for row in rows
    ]


def audits_since(db: Database, task: str, since: float) -> int:
    """How many audits of a task's students were made after `since`."""
    return int(db.query("audits_since", task=task, since=since)[0]["audits"])
