"""A run, and the services that it uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.dataset.rows import Row
from distill.teacher.client import TeacherClient
from store.database.store import Store
from store.records import TeacherCall
from store.settings.tasks import TaskSettings


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt to distil a task."""

    run_id: str
    task: str
    settings: TaskSettings
    started_at: float
    folder: Path


@dataclass(frozen=True, slots=True)
class Parts:
    """The services that a run uses."""

    store: Store
    clock: Callable[[], float]
    # (teacher's name, run, callback for each paid call) → a client for the teacher's endpoint
    teacher: Callable[[str, Run, Callable[[TeacherCall], None]], TeacherClient]
    placeholders: Sequence[str] = ()  # texts that replace redacted ones


def some_rows(rows: list[Row], most: int) -> list[Row]:
    """At most `most` rows, sampled by their hash: always the same, in whatever order they come."""
    return sorted(rows, key=lambda r: r.input_hash)[:most]


def student_tokens(rows: list[Row]) -> int:
    """The student's token limit: well above the longest target, as a token is a byte or more."""
    longest = max(len(r.target.encode()) for r in rows)
    return min(4096, 32 + longest + longest // 4)
