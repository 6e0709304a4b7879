"""Which logged requests count: as answers to learn from, as evidence, as new traffic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.collect import collect
from store.database.comparisons import write_comparisons
from store.database.database import Database
from store.database.traces import (
    audited_exchanges,
    corrected_exchanges,
    new_teacher_traces,
    requests_of_student,
    task_counts,
    teacher_answers,
    traffic_by_fingerprint,
    unaudited_traces,
    uncovered_teacher_traces,
)
from store.ids import new_id
from store.records import (
    Trace,
)
from tests.helpers.samples import (
    a_comparison,
    a_feedback,
    a_trace,
    write_segment,
)


@pytest.fixture
def take(db: Database, tmp_path: Path) -> Callable[..., None]:
    """Takes traces through the journal into the store."""

    def through(*traces: Trace) -> None:
        write_segment(tmp_path / "journal", *traces)
        collect(db, tmp_path / "journal", {})

    return through


def test_only_whole_answers_of_the_teacher_are_learned_from(
    db: Database, take: Callable[..., None]
) -> None:
    usable = [
        a_trace(start_time=3.0),
        a_trace(start_time=5.0, stream=True, api="responses"),
        a_trace(start_time=4.0, content="redacted"),
    ]
    take(
        *usable,
        a_trace(served_by="student", route="student"),
        a_trace(route="fallback", reason="student_unsure"),
        a_trace(outcome="client_gone"),
        a_trace(outcome="teacher_broke"),
        a_trace(outcome="error", status_code=500, served_by=None),
        a_trace(status_code=201),
        a_trace(content="none"),
        a_trace(api="embeddings", operation_name="embeddings"),
        a_trace(api="completions", operation_name="text_completion"),
        a_trace(task="orders"),
        a_trace(task=None),
    )
    found = teacher_answers(db, "triage", 10)
    assert [answer.trace_id for answer in found] == [usable[i].trace_id for i in (1, 2, 0)]
    assert len(teacher_answers(db, "triage", 2)) == 2
    assert new_teacher_traces(db, "triage", 0.0) == 3
    assert new_teacher_traces(db, "triage", 3.0) == 2
    assert new_teacher_traces(db, "nobody", 0.0) == 0
    assert task_counts(db) == {"orders": 1, "triage": 12}


OPTED_OUT = [{"content": "none"}, {"operation_name": "embeddings", "api": "embeddings"}]


@pytest.mark.parametrize("changes", OPTED_OUT)
@pytest.mark.slow
def test_requests_without_texts_are_never_learned_from_or_compared(
    db: Database, take: Callable[..., None], changes: dict[str, Any]
) -> None:
    student = {"served_by": "student", "route": "student", "student_id": new_id()}
    kept, hidden = a_trace(**student), a_trace(**student, **changes)
    take(kept, hidden, a_trace(**changes))
    for trace in (kept, hidden):
        audit = {"kind": "audit", "student_id": student["student_id"], "at": trace.end_time}
        write_comparisons(db, [a_comparison(trace_id=trace.trace_id, **audit)])
        take(a_feedback(trace_id=trace.trace_id, correction="refund"))

    found = traffic_by_fingerprint(db, "triage", requests=9, newest=9, shapes=9)
    assert [shape.requests for shape in found] == [1]
    for rows in (
        audited_exchanges(db, "triage", 9),
        corrected_exchanges(db, "triage", 9),
    ):
        assert [exchange.trace_id for exchange in rows] == [kept.trace_id]
    assert uncovered_teacher_traces(db, "triage", 0.0) == 0
    requests = requests_of_student(db, student["student_id"], 0.0, 9)
    assert {r.trace_id: r.has_texts for r in requests} == {
        kept.trace_id: True,
        hidden.trace_id: False,
    }
    db.execute("delete_comparisons", kind="audit", ids=[kept.trace_id, hidden.trace_id])
    owed = unaudited_traces(db, student["student_id"], 0.0)
    assert [trace_id for trace_id, _ in owed] == [kept.trace_id]
