"""Queries that collect the journal: segments are staged in temporary tables, then inserted.

To be called in one transaction: the temporary tables belong to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from store.database.database import Database
from store.database.rows import json_rows, record
from store.database.traces import RequestOutcome, request_outcome
from store.settings.teachers import Price


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentCounts:
    """How many lines of a segment are what."""

    name: str  # of the segment, without its suffix
    traces: int = 0
    feedback: int = 0
    damaged: int = 0  # neither
    forgotten: int = 0  # not collected, because their subject was forgotten


def known_segments(db: Database, names: Iterable[str]) -> set[str]:
    """Which of these segments were collected before."""
    return {row["name"] for row in db.query("known_segments", names=list(names))}


def lacks_records(db: Database, *, trace_ids: Sequence[str], feedback_ids: Sequence[str]) -> bool:
    """Whether the store lacks one of these traces or of this feedback."""
    found = db.query("lacks_records", trace_ids=list(trace_ids), feedback_ids=list(feedback_ids))
    return bool(found[0]["lacks"])


def stage_segments(db: Database, patterns: Sequence[str], largest_bytes: int) -> None:
    """Reads segments into a temporary table.

    `patterns`: the files' paths with their wildcards escaped. Raises InputRefused when one of them
    cannot be read at all.
    """
    db.execute("stage_segments", patterns=list(patterns), bytes=largest_bytes)


def staged_counts(db: Database) -> dict[str, SegmentCounts]:
    """The counts of the staged segments by name. A segment without a line is not among them."""
    return {row["name"]: record(SegmentCounts, row) for row in db.query("staged_counts")}


def staged_ids(db: Database, segment: str) -> set[str]:
    """The ids of a staged segment's traces and feedback, as they stand in its lines."""
    return {row["id"] for row in db.query("staged_ids", name=segment)}


def staged_models(db: Database) -> list[str]:
    """The models that the staged requests name."""
    return [row["request_model"] for row in db.query("staged_models")]


def staged_requests(db: Database) -> list[RequestOutcome]:
    """The staged requests that a student was asked for, and those that one in shadow or canary may
    be compared on; oldest first.
    """
    return [request_outcome(row) for row in db.query("staged_requests")]


def drop_forgotten(db: Database) -> dict[str, int]:
    """Removes the staged lines of forgotten subjects. Returns how many by segment."""
    if not db.query("any_forgotten"):
        return {}
    db.execute("stage_dropped")
    dropped = {row["name"]: int(row["dropped"]) for row in db.query("dropped_counts")}
    if dropped:
        db.execute("remember_dropped")
        db.execute("delete_dropped_feedback")
        db.execute("delete_dropped")
    return dropped


def drop_repeats(db: Database) -> bool:
    """Removes the staged traces that the store has already. Returns whether there were any."""
    if not db.query("any_repeats")[0]["repeats"]:
        return False
    db.execute("drop_repeats")
    return True


def insert_staged(db: Database, prices: Mapping[str, Price], *, feedback: bool) -> None:
    """Inserts the staged traces and feedback. `prices`: by model name, wildcards resolved.

    `feedback`: whether any is staged.
    """
    rows = [{"name": m, "input": p.input, "output": p.output} for m, p in prices.items()]
    db.execute("insert_traces", prices=json_rows(rows), now=time.time())
    if feedback:
        db.execute("insert_feedback")
    db.execute("insert_feedback_news")
    db.execute("drop_corrections")
    db.execute("drop_empty_feedback")


def insert_segments(db: Database, segments: Sequence[SegmentCounts]) -> None:
    """Records that segments are collected."""
    now = time.time()
    rows = [
        {
            "name": one.name,
            "traces": one.traces,
            "feedback": one.feedback,
            "damaged": one.damaged,
            "forgotten": one.forgotten,
            "collected_at": now,
        }
        for one in segments
    ]
    db.execute("insert_segments", rows=json_rows(rows))
