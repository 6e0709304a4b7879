"""The records of runs and promotions in the database: records go in, records come out.

What a run makes is *replaced* as a whole, in one transaction: a stage that was killed after writing
and is done again leaves everything there once. Events and promotions are appended.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter

from store.database.database import Database
from store.jsontext import to_json
from store.records import (
    Certificate,
    Evaluation,
    Example,
    Promotion,
    Route,
    RunEvent,
    RunState,
    TeacherCall,
)

R = TypeVar("R")
_CERTIFICATE = TypeAdapter(Certificate)
_ROUTE = TypeAdapter(Route)
_EVALUATION = TypeAdapter(Evaluation)


def as_line(record: Any) -> bytes:
    """A record as one line of JSON."""
    return to_json(record) + b"\n"


# ---- traces ------------------------------------------------------------------------------------


def tasks(db: Database) -> dict[str, int]:
    """Every task tag that was seen, in alphabetical order, with its number of requests."""
    return {row["task"]: row["traces"] for row in db.query("tasks")}


def traces_of_task(db: Database, task: str, limit: int) -> list[dict[str, Any]]:
    """The newest whole answers of the teacher for a task, newest first, as rows of `traces`."""
    return db.query("traces_of_task", task=task, limit=limit)


def traces_of_fingerprints(
    db: Database, task: str, fingerprints: Sequence[str], limit: int
) -> list[dict[str, Any]]:
    """The same of these fingerprints alone."""
    return db.query(
        "traces_of_fingerprints", task=task, fingerprints=list(fingerprints), limit=limit
    )


def recent_traffic(
    db: Database, task: str, *, requests: int, newest: int, shapes: int
) -> list[dict[str, Any]]:
    """The newest `requests` of a task, whoever answered, by fingerprint: at most `shapes` of them.

    `recent` of each: how many are among the `newest`. With it comes what its last request asked.
    """
    return db.query("recent_traffic", task=task, requests=requests, newest=newest, shapes=shapes)


def audited_traces(db: Database, task: str, limit: int) -> list[dict[str, Any]]:
    """The newest traces that a student answered and an audit asked the teacher again, with the
    teacher's answer as `teacher_output`, given at `answered_at`."""
    return db.query("audited_traces", task=task, limit=limit)


def corrected_traces(db: Database, task: str, limit: int) -> list[dict[str, Any]]:
    """The newest traces that clients corrected, each with its newest `correction`, from
    `answered_at`."""
    return db.query("corrected_traces", task=task, limit=limit)


def new_teacher_traces(db: Database, task: str, since: float, *, asked_since: float = 0.0) -> int:
    """How many whole answers of the teacher are new since a time.

    To requests after `since`, or imported after it. `asked_since`: of those the ones to requests
    after this time alone, whenever they were imported.
    """
    rows = db.query("new_teacher_traces", task=task, since=since, asked_since=asked_since)
    return int(rows[0]["traces"])


# ---- what a run makes --------------------------------------------------------------------------


def replace_examples(db: Database, run_id: str, examples: Sequence[Example]) -> None:
    """Makes these the examples of a run, in place of those that it had."""
    _replace(db, "examples", run_id, examples)


def examples_of_run(db: Database, run_id: str) -> list[Example]:
    """A run's examples, kept and rejected, in the order of their making."""
    return [record(Example, row) for row in db.query("examples_of_run", run_id=run_id)]


def replace_teacher_calls(db: Database, run_id: str, calls: Sequence[TeacherCall]) -> None:
    """Makes these the teacher calls of a run, in place of those that it had."""
    _replace(db, "teacher_calls", run_id, calls)


def teacher_calls_of_run(db: Database, run_id: str) -> list[TeacherCall]:
    """What a run asked of the teacher, oldest first."""
    return [record(TeacherCall, row) for row in db.query("teacher_calls_of_run", run_id=run_id)]


def replace_evaluations(db: Database, run_id: str, evaluations: Sequence[Evaluation]) -> None:
    """Makes these the evaluations of a run, in place of those that it had."""
    _replace(db, "evaluations", run_id, evaluations)


def evaluations_of_run(db: Database, run_id: str) -> list[Evaluation]:
    """A run's evaluated rows, by split and input hash."""
    return [evaluation(row) for row in db.query("evaluations_of_run", run_id=run_id)]


def evaluation(row: Mapping[str, Any]) -> Evaluation:
    """An evaluation from a row of the database or a line of a file."""
    signals = row.get("signals")
    read = orjson.loads(signals) if isinstance(signals, str) else signals
    return _EVALUATION.validate_python({**row, "signals": read})


def save_policy(
    db: Database, run_id: str, task: str, policy: Mapping[str, Any], parent_ids: Sequence[str] = ()
) -> None:
    """Keeps the policy that a run works by, in place of the one that it had.

    `parent_ids`: of the traces that the teacher was shown for it.
    """
    with db.transaction():
        db.execute("delete_policy", run_id=run_id)
        text, parents = to_json(dict(policy)).decode(), to_json(list(parent_ids)).decode()
        db.execute(
            "insert_policy",
            run_id=run_id,
            task=task,
            policy=text,
            at=time.time(),
            parents=parents,
        )


def policy_of_run(db: Database, run_id: str) -> dict[str, Any] | None:
    """The policy that a run worked by, or None."""
    rows = db.query("policy_of_run", run_id=run_id)
    return orjson.loads(rows[0]["policy"]) if rows else None


# ---- the history of runs -----------------------------------------------------------------------


def append_run_event(db: Database, event: RunEvent) -> None:
    """Appends an event to its run's history. Appended again, it is there once."""
    with db.transaction():
        db.execute("delete_run_event", run_id=event.run_id, seq=event.seq)
        db.execute("insert_run_events", rows=_array([event]))


def events_of_run(db: Database, run_id: str) -> list[RunEvent]:
    """The history of a run, oldest first."""
    return _events(db.query("events_of_run", run_id=run_id))


def events_of_last_run(db: Database, task: str) -> list[RunEvent]:
    """The history of a task's last run, oldest first; empty when it had none."""
    return _events(db.query("events_of_last_run", task=task))


def last_run_events(db: Database) -> dict[str, RunEvent]:
    """Where the last run of each task stands."""
    return {event.task: event for event in _events(db.query("last_run_events"))}


def unfinished_runs(db: Database) -> list[RunEvent]:
    """The last event of each run that did not come to its end, oldest run first."""
    return _events(db.query("unfinished_runs"))


def ended_runs(db: Database, task: str) -> list[RunEvent]:
    """The last event of each ended run of a task, oldest first."""
    return _events(db.query("ended_runs", task=task))


def certificates_of_task(db: Database, task: str) -> list[Certificate]:
    """The certificates of a task's judged runs, passed or not, oldest first."""
    found = (event.detail.get("certificate") for event in ended_runs(db, task))
    return [_CERTIFICATE.validate_python(certificate) for certificate in found if certificate]


def run_history(db: Database, task: str, limit: int = 20) -> list[RunEvent]:
    """The last event of each of a task's newest runs, newest first."""
    return _events(db.query("run_history", task=task, limit=limit))


def stage_detail(db: Database, run_id: str, state: str) -> dict[str, Any]:
    """The numbers that a run left on reaching a state; empty when it did not reach it."""
    for event in events_of_run(db, run_id):
        if event.state == state:
            return event.detail
    return {}


# ---- routes ------------------------------------------------------------------------------------


def append_promotion(db: Database, promotion: Promotion) -> None:
    """Appends to the history of a task's route."""
    db.execute("insert_promotions", rows=_array([promotion]))


def latest_promotions(db: Database) -> dict[str, Promotion]:
    """The last promotion of each task."""
    return {row["task"]: _promotion(row) for row in db.query("latest_promotions")}


def promotions_of_task(db: Database, task: str, limit: int = 20) -> list[Promotion]:
    """The history of a task's route, newest first."""
    return [_promotion(row) for row in db.query("promotions_of_task", task=task, limit=limit)]


# ---- rows and records --------------------------------------------------------------------------


def record(kind: type[R], row: Mapping[str, Any]) -> R:
    """A row as a record. Columns that the record does not have are left out."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]  # every record is a dataclass
    return kind(**{name: value for name, value in row.items() if name in names})


def _replace(db: Database, table: str, run_id: str, rows: Sequence[Any]) -> None:
    with db.transaction():
        db.execute(f"delete_{table}", run_id=run_id)
        if rows:
            db.execute(f"insert_{table}", rows=_array(rows))


def _array(rows: Sequence[Any]) -> str:
    return to_json(list(rows)).decode()


def _events(rows: Iterable[Mapping[str, Any]]) -> list[RunEvent]:
    return [
        record(
            RunEvent,
            {**row, "state": RunState(row["state"]), "detail": orjson.loads(row["detail"])},
        )
        for row in rows
    ]


def _promotion(row: Mapping[str, Any]) -> Promotion:
    certificate, route = row["certificate"], row["route"]
    return record(
        Promotion,
        {
            **row,
            "certificate": _CERTIFICATE.validate_json(certificate) if certificate else None,
            "route": _ROUTE.validate_json(route) if route else None,
        },
    )
