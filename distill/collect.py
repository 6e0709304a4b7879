"""Journal → store, exactly once.

A segment's name is committed together with its traces and its feedback, and only then the file is
deleted, after its lines were added to the copies of the last days (store.files.kept). Whatever is
killed at whatever point: a file that is still there is either not in the store at all, and is
collected, or wholly, and is only deleted. A line that is neither trace nor feedback, such as the
last one of a killed writer, is moved to the folder `damaged` beside the segments; it never holds up
the rest, and neither does an entry that is no segment at all or that cannot be read: see
store.files.journal. A trace is one trace however often it comes: in a segment that was copied,
or in a log that is imported again, whose ids are derived from its content. Lines of forgotten
subjects are not collected: see store.database.forgetting.
"""

from __future__ import annotations

import asyncio
import glob
import logging
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
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
from store.files.journal import (
    FAULT_OF_THE_ENTRY,
    damaged_folder,
    sealed_segments,
    set_entry_aside,
)
from store.files.kept import KeptSegments
from store.settings.teachers import Price, price_of

_MIN_BUFFER = 1 << 20  # of DuckDB's reader, which holds whole lines
_BATCH_BYTES = 1 << 24
MAX_LINE_BYTES = 1 << 28  # of a segment; a longer line is none of ours
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
    skipped: tuple[
        str, ...
    ] = ()  # entries that can be neither collected nor moved, with the reason
    not_kept: str | None = None  # why there are no copies of it
    requests: tuple[RequestOutcome, ...] = field(default=(), compare=False)  # evidence

    def __add__(self, other: Collected) -> Collected:
        return Collected(
            self.segments + other.segments,
            self.traces + other.traces,
            self.damaged + other.damaged,
            self.feedback + other.feedback,
            self.forgotten + other.forgotten,
            self.skipped + other.skipped,
            other.not_kept or self.not_kept,
            self.requests + other.requests,
        )


class Collector:
    """Collects one journal, one round at a time: two would read the same segments."""

    def __init__(
        self,
        store: Store,
        journal_dir: Path,
        prices: Mapping[str, Price],
        kept: KeptSegments | None = None,
    ) -> None:
        """`prices`: by model name. `kept`: where copies of what is collected stay."""
        self._store, self._journal_dir, self._prices = store, journal_dir, prices
        self._kept = kept
        self._lock = asyncio.Lock()

    async def collect(self) -> Collected:
        """Takes every sealed segment into the store. Raises as `collect` does."""
        async with self._lock:
            return await self._store.run(collect, self._journal_dir, self._prices, self._kept)


def collect(
    db: Database,
    journal_dir: Path,
    prices: Mapping[str, Price],
    kept: KeptSegments | None = None,
) -> Collected:
    """Takes every sealed segment into the store and deletes it. `prices`: by model name.

    `kept`: where copies of what is collected stay, without the lines of forgotten subjects. Raises
    StoreError when the store, and OSError when the folder cannot be used; what was collected until
    then stays collected, the rest stays in the journal.
    """
    skipped: list[str] = []
    segments = sealed_segments(journal_dir, skipped)
    total = Collected(0, 0, 0, skipped=tuple(skipped))
    for batch in _batches(segments):
        total += _collect_batch(db, batch, prices, kept)
    return total


def _batches(segments: list[Path]) -> Iterator[list[Path]]:
    """Many small segments cost as much as few large ones only when they are taken together."""
    batch: list[Path] = []
    size = 0
    for segment in segments:
        try:
            size += segment.stat().st_size
        except FileNotFoundError:
            continue
        batch.append(segment)
        if size >= _BATCH_BYTES or len(batch) == _BATCH_SEGMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _collect_batch(
    db: Database, segments: list[Path], prices: Mapping[str, Price], kept: KeptSegments | None
) -> Collected:
    """Takes segments into the store and deletes them; those that cannot be read are set aside."""
    total = Collected(0, 0, 0)
    readable = []
    for segment in segments:
        try:
            fault = _fault(segment)
        except FileNotFoundError:
            continue
        if fault is None:
            readable.append(segment)
        else:
            total += _give_up(segment, fault)
    copies: list[bytes] | None = [] if kept is not None and kept.active else None
    if readable:
        try:
            total += _insert(db, readable, prices, copies)
        except InputRefused:  # one of them cannot be read at all, which the proxies never write
            if len(readable) > 1:
                for segment in readable:
                    total += _collect_batch(db, [segment], prices, kept)
                return total
            total += _set_aside_whole(db, readable[0])
            copies = None
        except _CannotSetAside as failure:
            rest = [segment for segment in readable if segment != failure.segment]
            total += Collected(0, 0, 0, skipped=(str(failure),))
            return total + _collect_batch(db, rest, prices, kept) if rest else total
    if kept is not None and copies:
        total += _keep(kept, copies)
    return total + _delete(readable)


def _fault(segment: Path) -> str | None:
    """Why this segment cannot be given to DuckDB: it cannot be read, or has an endless line.

    Raises FileNotFoundError when it is not there any more.
    """
    try:
        if segment.stat().st_size > _BATCH_BYTES:
            longest = _longest_line(segment)
            return "a line of it is too long" if longest > MAX_LINE_BYTES else None
        segment.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in FAULT_OF_THE_ENTRY:
            return error.strerror
        raise
    return None


def _longest_line(segment: Path) -> int:
    """The length of a file's longest line; it is read no further than is needed to judge it."""
    longest = current = 0
    with segment.open("rb") as file:
        while longest <= MAX_LINE_BYTES and (block := file.read(_MIN_BUFFER)):
            first, *others = block.split(b"\n")
            current += len(first)
            longest = max(longest, current)
            for line in others:
                current = len(line)
                longest = max(longest, current)
    return longest


def _give_up(segment: Path, why: str) -> Collected:
    try:
        set_entry_aside(segment, why)
    except OSError:
        return Collected(0, 0, 0, skipped=(f"{segment.name}: {why}",))
    return Collected(0, 0, 0)


def _delete(segments: list[Path]) -> Collected:
    """Deletes what is collected. One that cannot be deleted is known, and not collected again."""
    skipped = []
    for segment in segments:
        try:
            segment.unlink(missing_ok=True)
        except OSError as error:
            skipped.append(f"{segment.name}: collected, but not deleted: {error.strerror}")
    return Collected(0, 0, 0, skipped=tuple(skipped))


def _keep(kept: KeptSegments, copies: list[bytes]) -> Collected:
    """Keeps copies. A failure is reported, and holds up nothing."""
    try:
        kept.keep(copies)
    except OSError as error:
        return Collected(0, 0, 0, not_kept=error.strerror or type(error).__name__)
    return Collected(0, 0, 0)


class _CannotSetAside(Exception):
    """A segment has damaged lines, and the folder for these cannot be written."""

    def __init__(self, segment: Path, error: OSError) -> None:
        super().__init__(f"{segment.name}: its damaged lines cannot be moved: {error.strerror}")
        self.segment = segment


def _insert(
    db: Database, segments: list[Path], prices: Mapping[str, Price], copies: list[bytes] | None
) -> Collected:
    """Commits segments with their content, and sets aside the damaged lines. `copies` gets what is
    to be kept of those that are committed now: of one that was committed before, it is not known
    whose lines it has.

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
            max(_MIN_BUFFER, *map(_buffer_bytes, segments)),
        )
        counts = staged_counts(db)
        for segment in segments:
            if segment.stem in counts and counts[segment.stem].damaged:
                _set_aside(segment, except_for=staged_ids(db, segment.stem))
        dropped = drop_forgotten(db)
        if dropped:
            log.warning("%d lines of forgotten subjects were not collected", sum(dropped.values()))
        if copies is not None:
            for segment in segments:
                count = counts.get(segment.stem)
                whole = not dropped.get(segment.stem) and (count is None or not count.damaged)
                copies.append(
                    segment.read_bytes()
                    if whole
                    else b"\n".join(_lines_with(segment, staged_ids(db, segment.stem)))
                )
        repeats = drop_repeats(db)
        if dropped or repeats:
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


def _buffer_bytes(segment: Path) -> int:
    """DuckDB's reader holds whole lines: the length of the longest, or a little more."""
    size = segment.stat().st_size
    return size if size <= _BATCH_BYTES else _longest_line(segment) + 1


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
    damaged = [line for line in _lines(segment) if _id(line) not in except_for]
    try:
        place = damaged_folder(segment.parent) / segment.name
        write_atomically(place, b"\n".join([*damaged, b""]))
    except OSError as error:
        if error.errno in FAULT_OF_THE_ENTRY:
            raise _CannotSetAside(segment, error) from None
        raise
    log.warning("%d damaged lines were moved to %s", len(damaged), place)
    return len(damaged)


def _lines(segment: Path) -> list[bytes]:
    return [line for line in segment.read_bytes().split(b"\n") if line.strip()]


def _lines_with(segment: Path, ids: AbstractSet[str]) -> list[bytes]:
    """The lines of the records with these ids."""
    return [line for line in _lines(segment) if _id(line) in ids]


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
