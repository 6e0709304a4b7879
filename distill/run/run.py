"""What a run is, and what it needs from outside."""

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
    """What a run needs from outside."""

    store: Store
    clock: Callable[[], float]
    # (task's model, run, what to do with each paid call) → a client for the teacher's endpoint
    teacher: Callable[[str, Run, Callable[[TeacherCall], None]], TeacherClient]
    placeholders: Sequence[str] = ()  # what stands for what is redacted


def some_rows(rows: list[Row], most: int) -> list[Row]:
    """At most `most` rows, drawn by their hash: the same ones each time, whatever their order."""
    return sorted(rows, key=lambda r: r.input_hash)[:most]


def student_tokens(rows: list[Row]) -> int:
    """The student's token limit: well above the longest target, as a token is a byte or more."""
    longest = max(len(r.target.encode()) for r in rows)
    return min(4096, 32 + longest + longest // 4)
