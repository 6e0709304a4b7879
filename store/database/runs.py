"""Queries on runs: their events, examples, teacher calls, evaluations and policies.

What a run makes is replaced as a whole, in one transaction, so that writing is idempotent: a stage
that was killed after writing and is repeated leaves everything there once. Events are appended.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import TypeAdapter

from store.database.database import Database, DatabaseRow
from store.database.rows import json_rows, record
from store.jsontext import JsonMapping, JsonObject, to_json
from store.records import (
    Certificate,
    Evaluation,
    Example,
    RunEvent,
    RunState,
    TeacherCall,
)

_CERTIFICATE = TypeAdapter(Certificate)
_EVALUATION = TypeAdapter(Evaluation)

# ---- events ------------------------------------------------------------------------------------


def append_run_event(db: Database, event: RunEvent) -> None:
    """Appends an event to its run's history. Appended again, it is there once."""
    with db.transaction():
        db.execute("delete_run_event", run_id=event.run_id, seq=event.seq)
        db.execute("insert_run_events", rows=json_rows([event]))


def update_run_event(db: Database, event: RunEvent) -> None:
    """Replaces the numbers of an event in its run's history."""
    detail = to_json(event.detail).decode()
    db.execute("update_run_event", run_id=event.run_id, seq=event.seq, detail=detail)


def events_of_run(db: Database, run_id: str) -> list[RunEvent]:
    """The history of a run, oldest first."""
    return _events(db.query("events_of_run", run_id=run_id))


def latest_run_id(db: Database, task: str) -> str | None:
    """The greatest id of a task's runs: that of the last one."""
    value = db.query("latest_run_id", task=task)[0]["run_id"]
    return None if value is None else str(value)


def events_of_last_run(db: Database, task: str) -> list[RunEvent]:
    """The history of a task's last run, oldest first; empty when it had none."""
    return _events(db.query("events_of_last_run", task=task))


def unfinished_runs(db: Database) -> list[RunEvent]:
    """The last event of each run that has not ended, oldest run first."""
    return _events(db.query("unfinished_runs"))


def ended_runs(db: Database, task: str) -> list[RunEvent]:
    """The last event of each ended run of a task, oldest first."""
    return _events(db.query("ended_runs", task=task))


def certificates_of_task(db: Database, task: str) -> list[Certificate]:
    """The certificates of a task's judged runs, passed or not, oldest first."""
    details = (event.detail.get("certificate") for event in ended_runs(db, task))
    return [_CERTIFICATE.validate_python(detail) for detail in details if detail]


def stage_detail(db: Database, run_id: str, state: str) -> JsonObject:
    """The numbers that a run recorded on reaching a state; empty when it did not reach it."""
    for event in events_of_run(db, run_id):
        if event.state == state:
            return event.detail
    return {}


# ---- examples, teacher calls, evaluations ------------------------------------------------------


def replace_examples(db: Database, run_id: str, examples: Sequence[Example]) -> None:
    """Makes these the examples of a run, in place of those that it had."""
    _replace(db, run_id, examples, delete="delete_examples", insert="insert_examples")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedInputs:
    """What trained runs of a task did with its inputs, by input hash and by trace id."""

    learned: frozenset[str]  # of the train and calibration rows
    judged: frozenset[str]  # of the held-out rows of one run
    expired: frozenset[str]  # salted hashes of what was trained on and has expired
    salt: str


def used_inputs(db: Database, task: str, judge: str | None) -> UsedInputs:
    """What runs used that a student was trained in. `judge`: the run whose held-out rows count."""
    learned: set[str] = set()
    judged: set[str] = set()
    for row in db.query("inputs_of_runs", task=task, judge=judge):
        (judged if row["heldout"] else learned).update((row["input_hash"], row["trace_id"]))
    expired = db.query("expired_inputs", task=task)
    return UsedInputs(
        learned=frozenset(learned - {None}),
        judged=frozenset(judged - {None}),
        expired=frozenset(row["input_digest"] for row in expired),
        salt=expired[0]["salt"] if expired else "",
    )


def replace_teacher_calls(db: Database, run_id: str, calls: Sequence[TeacherCall]) -> None:
    """Makes these the teacher calls of a run, in place of those that it had."""
    _replace(db, run_id, calls, delete="delete_teacher_calls", insert="insert_teacher_calls")


def append_teacher_calls(db: Database, calls: Sequence[TeacherCall]) -> None:
    """Adds teacher calls to those of their runs."""
    if calls:
        db.execute("insert_teacher_calls", rows=json_rows(calls))


def replace_evaluations(db: Database, run_id: str, evaluations: Sequence[Evaluation]) -> None:
    """Makes these the evaluations of a run, in place of those that it had."""
    _replace(db, run_id, evaluations, delete="delete_evaluations", insert="insert_evaluations")


def evaluations_of_run(db: Database, run_id: str) -> list[Evaluation]:
    """A run's evaluated rows, by split and input hash."""
    return [evaluation_of(row) for row in db.query("evaluations_of_run", run_id=run_id)]


def evaluation_of(row: JsonMapping) -> Evaluation:
    """An evaluation from a row of the database or a line of a file."""
    signals = row.get("signals")
    decoded = orjson.loads(signals) if isinstance(signals, str) else signals
    return _EVALUATION.validate_python({**row, "signals": decoded})


# ---- policies ----------------------------------------------------------------------------------


def save_policy(
    db: Database, run_id: str, task: str, policy: JsonMapping, parent_ids: Sequence[str] = ()
) -> None:
    """Saves the policy that a run works by, in place of the one that it had.

    `parent_ids`: the traces that the teacher was shown for it.
    """
    with db.transaction():
        db.execute("delete_policy", run_id=run_id)
        db.execute(
            "insert_policy",
            run_id=run_id,
            task=task,
            policy=to_json(dict(policy)).decode(),
            at=time.time(),
            parents=json_rows(parent_ids),
        )


def _replace(db: Database, run_id: str, rows: Sequence[Any], *, delete: str, insert: str) -> None:
    with db.transaction():
        db.execute(delete, run_id=run_id)
        if rows:
            db.execute(insert, rows=json_rows(rows))


def _events(rows: Iterable[DatabaseRow]) -> list[RunEvent]:
    return [
        record(
            RunEvent,
            {**row, "state": RunState(row["state"]), "detail": orjson.loads(row["detail"])},
        )
        for row in rows
    ]
