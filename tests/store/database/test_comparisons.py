"""Live comparisons in the database: what goes in comes out, and no trace counts twice."""

from __future__ import annotations

from dataclasses import replace

from store.database.comparisons import write_comparisons
from store.database.database import Database
from tests.helpers.samples import a_comparison
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
