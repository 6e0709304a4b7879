"""Reads of the database that tests alone need."""

from __future__ import annotations

from typing import Any

import orjson

from store.database.database import Database
from store.database.rows import record
from store.jsontext import JsonObject
from store.records import Comparison, Example, TeacherCall


def rows(db: Database, sql: str, **params: Any) -> list[dict[str, Any]]:
    """The rows of a query by column name; UUIDs as strings."""
    with db._cursor() as cursor:
        found = cursor.execute(sql, params)
        names = [column[0] for column in found.description]
        uuids = {column[0] for column in found.description if str(column[1]) == "UUID"}
        return [
            {
                name: str(value) if name in uuids and value is not None else value
                for name, value in zip(names, row, strict=True)
            }
            for row in found.fetchall()
        ]


def examples_of_run(db: Database, run_id: str) -> list[Example]:
    """A run's examples, kept and rejected, in the order in which they were made."""
    sql = "SELECT * FROM examples WHERE run_id = $run::UUID ORDER BY created_at, example_id"
    return [record(Example, row) for row in rows(db, sql, run=run_id)]


def teacher_calls_of_run(db: Database, run_id: str) -> list[TeacherCall]:
    """What a run asked of the teacher, oldest first."""
    sql = 'SELECT * FROM teacher_calls WHERE run_id = $run::UUID ORDER BY "at", call_id'
    return [record(TeacherCall, row) for row in rows(db, sql, run=run_id)]


def policy_of_run(db: Database, run_id: str) -> JsonObject | None:
    """The policy that a run worked by, or None."""
    found = rows(db, "SELECT policy FROM policies WHERE run_id = $run::UUID", run=run_id)
    return orjson.loads(found[0]["policy"]) if found else None


def comparisons_of_student(db: Database, student_id: str) -> list[Comparison]:
    """All live comparisons of a student, oldest first."""
    sql = 'SELECT * FROM comparisons WHERE student_id = $id::UUID ORDER BY "at", trace_id'
    return [record(Comparison, row) for row in rows(db, sql, id=student_id)]
