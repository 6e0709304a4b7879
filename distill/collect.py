"""Journal → store, exactly once.

A segment's name is committed together with its traces and its feedback, and only then the file
goes. Whatever is killed when: a file that is still there is either not in the store at all, and is
collected, or wholly, and only deleted. A line that is neither trace nor feedback, such as the last
one of a killed writer, is kept in the folder `damaged` beside the segments; it never holds up the
rest. A trace that comes from another log has an id that is made from what it says: it is taken
once, however often that log is imported. What is of somebody or something that was forgotten is not
taken: see store.database.forgetting.
"""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from store.database.collecting import staged_requests
from store.database.database import Database
from store.database.traces import RequestOutcome
from store.errors import InputRefused
from store.files.atomic import write_atomically
from store.files.journal import DAMAGED_FOLDER, sealed_segments
from store.settings.teachers import Price, price_of

_MIN_BUFFER = 1 << 20  # DuckDB's reader holds whole lines; none is longer than its segment
_BATCH_BYTES = 1 << 24
_BATCH_SEGMENTS = 256
_NOTHING = {"traces": 0, "feedback": 0, "damaged": 0, "forgotten": 0}
_KINDS = ("traces", "damaged", "feedback", "forgotten")

log = logging.getLogger("understudy.collect")


@dataclass(frozen=True, slots=True)
class Collected:
    """What one round of collecting took in."""

    segments: int
    traces: int
    damaged: int  # lines set aside
    feedback: int = 0
    forgotten: int = 0  # lines that were not taken, because their subject was forgotten
    routed: tuple[RequestOutcome, ...] = field(default=(), compare=False)  # evidence

    def __add__(self, other: Collected) -> Collected:
        return Collected(
            self.segments + other.segments,
            self.traces + other.traces,
            self.damaged + other.damaged,
            self.feedback + other.feedback,
            self.forgotten + other.forgotten,
            self.routed + other.routed,
        )


def collect(db: Database, journal_dir: Path, prices: Mapping[str, Price]) -> Collected:
    """Takes every sealed segment into the store and deletes it. `prices`: by model name.

    Raises StoreError when the store, and OSError when the folder does not let it; what was
    collected until then stays collected, the rest stays in the journal.
    """
    total = Collected(0, 0, 0)
    for batch in _batches(sealed_segments(journal_dir)):
        known = {r["name"] for r in db.query("known_segments", names=[s.stem for s in batch])}
        total += _collect_batch(db, [s for s in batch if s.stem not in known], prices)
        for segment in batch:
            segment.unlink(missing_ok=True)
    return total


def _batches(segments: list[Path]) -> Iterator[list[Path]]:
    """Many small segments cost as much as few large ones only when they are taken together."""
    batch: list[Path] = []
    size = 0
    for segment in segments:
        batch.append(segment)
        size += segment.stat().st_size
        if size >= _BATCH_BYTES or len(batch) == _BATCH_SEGMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _collect_batch(db: Database, segments: list[Path], prices: Mapping[str, Price]) -> Collected:
    if not segments:
        return Collected(0, 0, 0)
    try:
        return _take(db, segments, prices)
    except InputRefused:  # one of them cannot be read at all, which none of ours is
        if len(segments) == 1:
            return _refuse(db, segments[0])
    total = Collected(0, 0, 0)
    for segment in segments:
        total += _collect_batch(db, [segment], prices)
    return total


def _take(db: Database, segments: list[Path], prices: Mapping[str, Price]) -> Collected:
    """Commits segments with what they hold, and sets aside the damaged lines."""
    with db.transaction():
        db.execute(
            "stage_segments",
            patterns=[glob.escape(str(segment.absolute())) for segment in segments],
            bytes=max(_MIN_BUFFER, *(segment.stat().st_size for segment in segments)),
        )
        counts = {row["name"]: row for row in db.query("staged_counts")}
        for segment in segments:
            if counts.get(segment.stem, _NOTHING)["damaged"]:
                taken = {row["id"] for row in db.query("staged_ids", name=segment.stem)}
                _set_aside(segment, taken)
        dropped = _drop_forgotten(db)
        if any(row["imported"] for row in counts.values()):
            db.execute("drop_repeats")
        if dropped or any(row["imported"] for row in counts.values()):
            counts = {row["name"]: row for row in db.query("staged_counts")}
        models = [row["request_model"] for row in db.query("staged_models")]
        db.execute("insert_traces", prices=_priced(models, prices), now=time.time())
        if any(row["feedback"] for row in counts.values()):
            db.execute("insert_feedback")
        db.execute("insert_feedback_news")
        db.execute("drop_corrections")
        db.execute("drop_empty_feedback")
        rows = [{"name": s.stem, **_NOTHING, **counts.get(s.stem, {})} for s in segments]
        got = _remember(db, [{**row, "forgotten": dropped.get(row["name"], 0)} for row in rows])
        return replace(got, routed=tuple(staged_requests(db)))


def _drop_forgotten(db: Database) -> dict[str, int]:
    """Takes out of what is staged what was forgotten. Returns how many lines of which segment."""
    if not db.query("any_forgotten"):
        return {}
    db.execute("stage_dropped")
    dropped = {row["name"]: int(row["dropped"]) for row in db.query("dropped_counts")}
    if dropped:
        for query in ("remember_dropped", "delete_dropped_feedback", "delete_dropped"):
            db.execute(query)
        log.warning(
            "%d lines were not taken: what they speak of was forgotten", sum(dropped.values())
        )
    return dropped


def _refuse(db: Database, segment: Path) -> Collected:
    """Sets a segment aside as a whole."""
    damaged = _set_aside(segment, set())
    return _remember(db, [{**_NOTHING, "name": segment.stem, "damaged": damaged}])


def _remember(db: Database, segments: list[dict[str, Any]]) -> Collected:
    now = time.time()
    rows = orjson.dumps([{**segment, "collected_at": now} for segment in segments]).decode()
    db.execute("insert_segments", rows=rows)
    return Collected(len(segments), *(sum(s[kind] for s in segments) for kind in _KINDS))


def _set_aside(segment: Path, taken: set[str]) -> int:
    """Copies the lines that hold none of the taken records. Returns how many there are."""
    lines = [line for line in segment.read_bytes().split(b"\n") if line.strip()]
    damaged = [line for line in lines if _id(line) not in taken]
    place = segment.parent / DAMAGED_FOLDER / segment.name
    write_atomically(place, b"\n".join([*damaged, b""]))
    log.warning("%d damaged lines were moved to %s", len(damaged), place)
    return len(damaged)


def _id(line: bytes) -> str | None:
    """The feedback_id of a line that has one, else its trace_id."""
    try:
        read = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(read, dict):
        return None
    found = read.get("trace_id") if read.get("feedback_id") is None else read["feedback_id"]
    return found if isinstance(found, str) else None


def _priced(models: list[str], prices: Mapping[str, Price]) -> str:
    """The prices of these models as a parameter. Wildcard names are resolved here, not in SQL."""
    found = ((model, price_of(prices, model)) for model in models)
    rows = [{"name": m, "input": p.input, "output": p.output} for m, p in found if p is not None]
    return orjson.dumps(rows).decode()
