"""Live comparisons in the database: what goes in comes out, and no trace counts twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distill.collect import collect
from store.database.comparisons import compared_inputs, write_comparisons
from store.database.database import Database
from store.database.traces import requests_of_student
from store.ids import new_id
from store.jsontext import to_json
from tests.helpers.samples import a_comparison, a_trace, write_segment
from tests.helpers.stored import comparisons_of_student


def test_comparisons_come_back_oldest_first(db: Database) -> None:
    first = a_comparison(at=1.0, fault="student_unsure", servable=False, student_output=None)
    second = a_comparison(at=2.0, student_id=first.student_id, kind="audit")
    other = a_comparison(at=1.5)
    write_comparisons(db, [second, other, first])

    assert comparisons_of_student(db, first.student_id) == [first, second]


def test_a_second_comparison_of_a_trace_and_kind_replaces_the_first(db: Database) -> None:
    found = a_comparison()
    write_comparisons(db, [found])
    again = replace(found, agrees=False)
    audit = replace(found, kind="audit", at=found.at + 1)
    write_comparisons(db, [again, audit])

    assert comparisons_of_student(db, found.student_id) == [again, audit]


def test_writing_no_comparisons_is_allowed(db: Database) -> None:
    write_comparisons(db, [])


def test_messages_are_read_up_to_a_limit(db: Database, tmp_path: Path) -> None:
    """The newest first: prompts may be long, and twenty thousand requests are replayed."""
    student = new_id()
    messages = to_json([{"role": "user", "content": "x" * 1000}]).decode()
    traces = [
        a_trace(start_time=float(n), end_time=float(n), student_id=student, input_messages=messages)
        for n in range(1, 11)
    ]
    write_segment(tmp_path, *traces)
    collect(db, tmp_path, {})
    write_comparisons(
        db,
        [
            a_comparison(trace_id=t.trace_id, student_id=student, at=t.start_time, kind="audit")
            for t in traces
        ],
    )
    most = 3 * len(messages)
    read = requests_of_student(db, student, 0.0, 100, most_bytes=most)
    assert [bool(one.beginnings) for one in read] == [False] * 7 + [True] * 3
    newest = compared_inputs(db, student, 0.0, 100, most_bytes=most)
    assert [one.trace_id for one in newest] == [t.trace_id for t in traces[-3:]]
