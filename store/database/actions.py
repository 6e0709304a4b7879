"""Queries on the append-only history of commands given by hand."""

from __future__ import annotations

from store.database.database import Database
from store.database.rows import json_rows, record
from store.records import Action


def append_action(db: Database, action: Action) -> None:
    """Appends to the history of commands given by hand."""
    db.execute("insert_actions", rows=json_rows([action]))


def actions_of_task(db: Database, task: str, limit: int = 20) -> list[Action]:
    """The commands given to a task by hand, newest first."""
    return [record(Action, row) for row in db.query("actions_of_task", task=task, limit=limit)]


def paused_tasks(db: Database) -> set[str]:
    """The tasks that are paused by hand."""
    return {row["task"] for row in db.query("paused_tasks")}


def retrain_requested(db: Database, task: str) -> bool:
    """Whether a run was requested by hand since the last one began."""
    return bool(db.query("retrain_requested", task=task)[0]["requested"])
