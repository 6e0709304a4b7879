"""Queries on live comparisons: what shadow, audits and feedback say of a serving student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Annotated

from pydantic import Field

from store.chat.shape import Messages
from store.database.database import Database
from store.database.rows import json_rows, record
from store.database.runs import append_teacher_calls
from store.database.traces import MAX_BYTES, logged_request, messages_of
from store.records import Comparison, ComparisonKind, LoggedRequest, TeacherCall


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
    group: str  # comparisons of one group belong together
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedGroups:
    """A student's servable comparisons from fair samples, of one group or of several.

    `step_…`: of requests since the present step began.
    """

    key: str | None  # None: of several groups together
    groups: int
    n: int  # comparisons
    agreed: int
    firsts: int  # groups whose first comparison agrees
    missed: float  # sum over the groups of the share that disagrees
    step_groups: int
    step_n: int
    step_agreed: int
    step_firsts: int
    step_missed: float
    audited: int  # groups with an audit


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedInput:
    """A comparison's request, and the group that the comparison has."""

    trace_id: str
    kind: ComparisonKind
    group_key: str | None
    at: float
    messages: Messages


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedOften:
    """A frequent input's comparisons, and the last request that had it."""

    fingerprint: str
    compared: int
    agreed: int
    request: LoggedRequest


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


def inputs_that_differ(
    db: Database,
    task: str,
    student_id: str,
    *,
    since: float,
    requests: int,
    share: float,
    least: int,
) -> list[ComparedOften]:
    """The inputs that are this share of the task's newest `requests`, and `least` of them or more,
    and on which servable comparisons of the student made after `since` disagree.
    """
    rows = db.query(
        "inputs_that_differ",
        task=task,
        student_id=student_id,
        since=since,
        requests=requests,
        share=share,
        least=least,
    )
    return [record(ComparedOften, {**row, "request": logged_request(row)}) for row in rows]


def counts_of_student(
    db: Database, student_id: str, *, since: float, until: float
) -> list[KindCounts]:
    """The comparisons of a student after `since` and before `until`, counted by kind."""
    rows = db.query("counts_of_student", student_id=student_id, since=since, until=until)
    return [
        KindCounts(kind=row["kind"], all=ComparisonCounts(row["n"], row["servable"], row["agreed"]))
        for row in rows
    ]


def groups_of_student(
    db: Database, student_id: str, *, since: float, until: float, step_at: float, limit: int
) -> list[ComparedGroups]:
    """The comparisons of a student after `since` and before `until` by group, oldest first.

    The newest `limit` groups are told apart. `step_at`: when the present step began.
    """
    rows = db.query(
        "groups_of_student",
        student_id=student_id,
        since=since,
        until=until,
        step_at=step_at,
        limit=limit,
    )
    return [record(ComparedGroups, row) for row in rows]


def compared_inputs(
    db: Database,
    student_id: str,
    since: float,
    limit: int,
    *,
    ungrouped: bool = False,
    most_bytes: int = MAX_BYTES,
) -> list[ComparedInput]:
    """The newest comparisons of a student made after `since` with their requests, oldest first.

    No more of them than have `most_bytes` of messages. Those whose trace was deleted are not among
    them. `ungrouped`: only those without a group.
    """
    rows = db.query(
        "compared_inputs",
        student_id=student_id,
        since=since,
        limit=limit,
        ungrouped=ungrouped,
        most_bytes=most_bytes,
    )
    return [
        record(ComparedInput, {**row, "messages": messages_of(row["input_messages"])})
        for row in reversed(rows)
    ]


def set_group_keys(db: Database, inputs: Sequence[ComparedInput]) -> None:
    """Writes the groups of these comparisons."""
    rows = [
        {"trace_id": one.trace_id, "kind": one.kind, "group_key": one.group_key} for one in inputs
    ]
    if rows:
        db.execute("set_group_keys", rows=json_rows(rows))


def audits_since(db: Database, task: str, since: float) -> int:
    """How many audits of a task's students were made after `since`."""
    return int(db.query("audits_since", task=task, since=since)[0]["audits"])
