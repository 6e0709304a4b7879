"""A run, and the services that it uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.dataset.rows import Row
from distill.teacher.client import TeacherClient
from store.database.store import Store
from store.hashing import uniform
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


def some_groups(rows: list[Row], most: int) -> list[Row]:
    """At most `most` rows, whole groups of them, in their order.

    Groups are sampled by a hash of a member, whatever their size, up to the first that does not
    fit; of one that alone has more rows, some of them.
    """
    if len(rows) <= most:
        return rows
    groups: dict[object, list[Row]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(("row", place) if row.group is None else row.group, []).append(row)
    chosen: list[Row] = []
    for members in sorted(groups.values(), key=_draw_of_group):
        if len(chosen) + len(members) > most:
            chosen = chosen or some_rows(members, most)
            break
        chosen += members
    kept = {id(row) for row in chosen}
    return [row for row in rows if id(row) in kept]


def _draw_of_group(members: list[Row]) -> float:
    # of one member and not the least of all members' hashes, which would favour large groups
    return uniform(min(row.trace_id for row in members).encode(), purpose=b"groups")


def student_tokens(rows: list[Row]) -> int:
    """The student's token limit: well above the longest target, as a token is a byte or more."""
    longest = max(len(r.target.encode()) for r in rows)
    return min(4096, 32 + longest + longest // 4)
