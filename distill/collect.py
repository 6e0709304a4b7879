"""Journal → store, exactly once.

A segment's name is committed together with its traces and its feedback, and only then the file is
deleted. Whatever is killed at whatever point: a file that is still there is either not in the store
at all, and is collected, or wholly, and is only deleted. A line that is neither trace nor feedback,
such as the last one of a killed writer, is moved to the folder `damaged` beside the segments; it
never holds up the rest. A trace of an imported log has an id that is derived from its content: it
is collected once, however often that log is imported. Lines of forgotten subjects are not
collected: see store.database.forgetting.
"""

from __future__ import annotations

import asyncio
import glob
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from store.database.collecting import (
    SegmentCounts,
    drop_forgotten,
    drop_repeats,
    insert_segments,
    insert_staged,
    known_segments,
    stage_segments,
    staged_counts,
    staged_ids,
    staged_models,
    staged_requests,
)
from store.database.database import Database
from store.database.store import Store
from store.database.traces import RequestOutcome
from store.errors import InputRefused
from store.files.atomic import write_atomically
from store.files.journal import DAMAGED_FOLDER, sealed_segments
from store.settings.teachers import Price, price_of

_MIN_BUFFER = 1 << 20  # DuckDB's reader holds whole lines; none is longer than its segment
_BATCH_BYTES = 1 << 24
_BATCH_SEGMENTS = 256

log = logging.getLogger("understudy.collect")


@dataclass(frozen=True, slots=True)
class Collected:
    """What one round of collecting took in."""

    segments: int
    traces: int
    damaged: int  # lines set aside
    feedback: int = 0
    forgotten: int = 0  # lines that were not collected, because their subject was forgotten
    requests: tuple[RequestOutcome, ...] = field(default=(), compare=False)  # evidence

    def __add__(self, other: Collected) -> Collected:
        return Collected(
            self.segments + other.segments,
            self.traces + other.traces,
            self.damaged + other.damaged,
            self.feedback + other.feedback,
            self.forgotten + other.forgotten,
            self.requests + other.requests,
        )


class Collector:
    """Collects one journal, one round at a time: two would read the same segments."""

    def __init__(self, store: Store, journal_dir: Path, prices: Mapping[str, Price]) -> None:
        """`prices`: by model name."""
        self._store, self._journal_dir, self._prices = store, journal_dir, prices
        self._lock = asyncio.Lock()

    async def collect(self) -> Collected:
        """Takes every sealed segment into the store. Raises as `collect` does."""
        async with self._lock:
            return await self._store.run(collect, self._journal_dir, self._prices)


def collect(db: Database, journal_dir: Path, prices: Mapping[str, Price]) -> Collected:
    """Takes every sealed segment into the store and deletes it. `prices`: by model name.

    Raises StoreError when the store, and OSError when the folder cannot be used; what was collected
    until then stays collected, the rest stays in the journal.
    """
    total = Collected(0, 0, 0)
    for batch in _batches(sealed_segments(journal_dir)):
        total += _collect_batch(db, batch, prices)
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
    try:
        return _insert(db, segments, prices)
    except InputRefused:  # one of them cannot be read at all, which the proxies never write
        if len(segments) == 1:
            return _set_aside_whole(db, segments[0])
    total = Collected(0, 0, 0)
    for segment in segments:
        total += _collect_batch(db, [segment], prices)
    return total


def _insert(db: Database, segments: list[Path], prices: Mapping[str, Price]) -> Collected:
    """Commits segments with their content, and sets aside the damaged lines.

    What was collected before is looked up inside the transaction: a collector whose caller was
    cancelled may still be at work in another thread.
    """
    with db.transaction():
        known = known_segments(db, (segment.stem for segment in segments))
        segments = [segment for segment in segments if segment.stem not in known]
        if not segments:
            return Collected(0, 0, 0)
        stage_segments(
            db,
            [glob.escape(str(segment.absolute())) for segment in segments],
            max(_MIN_BUFFER, *(segment.stat().st_size for segment in segments)),
        )
        counts = staged_counts(db)
        for segment in segments:
            if segment.stem in counts and counts[segment.stem].damaged:
                _set_aside(segment, except_for=staged_ids(db, segment.stem))
        dropped = drop_forgotten(db)
        if dropped:
            log.warning("%d lines of forgotten subjects were not collected", sum(dropped.values()))
        imported = any(one.imported for one in counts.values())
        if imported:
            drop_repeats(db)
        if dropped or imported:
            counts = staged_counts(db)
        insert_staged(
            db,
            _prices_of(staged_models(db), prices),
            feedback=any(one.feedback for one in counts.values()),
        )
        rows = [
            replace(
                counts.get(segment.stem, SegmentCounts(name=segment.stem)),
                forgotten=dropped.get(segment.stem, 0),
            )
            for segment in segments
        ]
        insert_segments(db, rows)
        return replace(_total(rows), requests=tuple(staged_requests(db)))


def _set_aside_whole(db: Database, segment: Path) -> Collected:
    damaged = _set_aside(segment, except_for=set())
    rows = [SegmentCounts(name=segment.stem, damaged=damaged)]
    insert_segments(db, rows)
    return _total(rows)


def _total(rows: list[SegmentCounts]) -> Collected:
    return Collected(
        len(rows),
        sum(row.traces for row in rows),
        sum(row.damaged for row in rows),
        sum(row.feedback for row in rows),
        sum(row.forgotten for row in rows),
    )


def _set_aside(segment: Path, *, except_for: set[str]) -> int:
    """Copies the lines to `damaged`, but for the records with these ids. Returns how many."""
    lines = [line for line in segment.read_bytes().split(b"\n") if line.strip()]
    damaged = [line for line in lines if _id(line) not in except_for]
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
    value = read.get("trace_id") if read.get("feedback_id") is None else read["feedback_id"]
    return value if isinstance(value, str) else None


def _prices_of(models: list[str], prices: Mapping[str, Price]) -> dict[str, Price]:
    """The prices of these models. Wildcard names are resolved here, not in SQL."""
    pairs = ((model, price_of(prices, model)) for model in models)
    return {model: price for model, price in pairs if price is not None}
