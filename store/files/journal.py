"""The journal: how the data plane hands traces to the store, without a database in between.

One line of JSON a trace, appended to a *segment*. A line with a `feedback_id` is a client's
feedback on an answer; every other line is a trace. A segment's name tells its state:

    .<id>-<worker>.new       just created, not locked yet; ignored by readers
    <id>-<worker>.open       being written, under an exclusive lock of its writer
    <id>-<worker>.jsonl      sealed: whole, never written again, waiting to be collected

The lock ends with the process that holds it, however that ends. So an `.open` segment whose lock
can be taken has lost its writer, and the collector adopts it. Ids are UUIDv7: names sort by age,
and no name is ever used twice. An append is one `write` into the page cache, so a killed process
loses nothing that it acknowledged; `journal.fsync` extends that to a power cut.

An entry that is no readable file, or whose name no writer of ours would choose, never holds up the
others: it is moved to `damaged`, or skipped and reported where it cannot be moved.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import stat
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from store.files.atomic import make_folder, open_regular
from store.ids import new_id
from store.jsontext import to_json
from store.records import Feedback, Trace
from store.settings.config import JournalSettings

OPEN, SEALED = ".open", ".jsonl"
DAMAGED_FOLDER = "damaged"  # beside the segments: what could not be collected
_NEW = ".new"
# What DuckDB reads as it stands: it splits paths at backslashes too, and takes UTF-8 alone.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+@,=-]{0,200}")
# Other failures, such as a lack of descriptors, say nothing about the entry.
FAULT_OF_THE_ENTRY = frozenset(
    (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EIO)
)
_NEW_IS_STALE_AFTER_S = 60.0
_MB = 1024 * 1024

log = logging.getLogger("understudy.journal")


@dataclass(frozen=True, slots=True)
class JournalHealth:
    """How the journal is doing."""

    ok: bool  # False from a failed write until everything is written again
    error: str | None  # the last failure; None when ok
    backlog: int  # lines that wait in memory
    lost: int  # lines dropped from a full backlog since the start


@dataclass(slots=True)
class _Segment:
    path: Path
    fd: int
    opened_at: float
    size: int = 0


class JournalWriter:
    """Appends traces and feedback to the segments of one worker. For use by one thread.

    No method raises: a line that cannot be written waits in a bounded backlog, oldest first, and
    `health` says so. Segments are created when there is something to write, so an idle journal is
    an empty folder.
    """

    def __init__(
        self,
        folder: Path,
        settings: JournalSettings,
        worker: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._worker = worker
        self._clock = clock
        self._segment: _Segment | None = None
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._lost = 0
        self._error: str | None = None

    @property
    def health(self) -> JournalHealth:
        return JournalHealth(self._error is None, self._error, len(self._backlog), self._lost)

    def append(self, record: Trace | Feedback) -> None:
        """Writes the record before it returns, or keeps it in memory until it can be written."""
        line = to_json(record) + b"\n"
        if self._backlog:
            self._keep(line)
            self._flush()
        elif not self._write(line):
            self._keep(line)

    def tick(self) -> None:
        """Retries the backlog, and seals an old or a large segment. To be called regularly."""
        self._flush()
        segment = self._segment
        if segment is not None and segment.size > 0:
            if not os.fstat(segment.fd).st_nlink:
                self._rescue(segment)
                return
            old = self._clock() - segment.opened_at >= self._settings.segment_seconds
            if old or segment.size >= self._settings.segment_mb * _MB:
                self._seal(segment)

    def close(self) -> None:
        """Writes the backlog and seals. A backlog that still cannot be written is lost."""
        self._flush()
        if self._segment is not None and not os.fstat(self._segment.fd).st_nlink:
            self._rescue(self._segment)
        if self._segment is not None:
            self._seal(self._segment)
        self._lost += len(self._backlog)
        self._backlog.clear()
        self._backlog_bytes = 0

    def _keep(self, line: bytes) -> None:
        self._backlog.append(line)
        self._backlog_bytes += len(line)
        while self._backlog and self._backlog_bytes > self._settings.backlog_mb * _MB:
            self._backlog_bytes -= len(self._backlog.popleft())
            self._lost += 1

    def _flush(self) -> None:
        while self._backlog and self._write(self._backlog[0]):
            self._backlog_bytes -= len(self._backlog.popleft())

    def _write(self, line: bytes) -> bool:
        """Writes the line whole or not at all; whether it is written."""
        try:
            segment = self._segment = self._segment or self._open()
            written = os.write(segment.fd, line)
            if written < len(line):
                raise OSError(None, "only a part of a line could be written")
            if self._settings.fsync:
                os.fsync(segment.fd)
        except OSError as error:
            self._failed(error)
            if self._segment is not None:
                self._cut_back(self._segment)
            return False
        segment.size += len(line)
        if len(self._backlog) <= 1:  # the last that waited, or none did
            self._error = None
        return True

    def _open(self) -> _Segment:
        """A new segment. It gets its name once it is locked, so that nobody adopts it."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = f"{new_id()}-{self._worker}"
        hidden, path = self._folder / f".{name}{_NEW}", self._folder / f"{name}{OPEN}"
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
        fd = os.open(hidden, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.rename(path)
        except OSError:
            os.close(fd)
            with suppress(OSError):
                hidden.unlink()
            raise
        return _Segment(path, fd, self._clock())

    def _cut_back(self, segment: _Segment) -> None:
        """Takes the half of a line away again; a segment that cannot be cut is given up."""
        try:
            os.ftruncate(segment.fd, segment.size)
        except OSError:
            self._seal(segment)

    def _seal(self, segment: _Segment) -> None:
        """Hands the segment to the collector. When the rename fails, the freed lock does that."""
        self._segment = None
        try:
            segment.path.rename(segment.path.with_suffix(SEALED))
        except OSError as error:
            self._failed(error)
        finally:
            os.close(segment.fd)

    def _rescue(self, segment: _Segment) -> None:
        """Writes the lines of a segment again that was deleted, alone or with its folder."""
        self._segment = None
        try:
            lines = os.pread(segment.fd, segment.size, 0).split(b"\n")[:-1]
        except OSError as error:
            self._failed(error)
            lines = []
        finally:
            os.close(segment.fd)
        for line in lines:
            self._keep(line + b"\n")
        self._flush()

    def _failed(self, error: OSError) -> None:
        why = error.strerror or type(error).__name__
        self._error = f"{self._folder}: the journal cannot be written: {why}"


def sealed_segments(folder: Path, skipped: list[str] | None = None) -> list[Path]:
    """The segments that wait to be collected, oldest first; what is no segment is set aside.

    Adopts the `.open` segments of dead writers first. Safe to call while others write or collect.
    None without the folder. `skipped` gets a line for each entry that cannot be read or moved.
    Raises OSError when the folder cannot be listed.
    """
    faults = [] if skipped is None else skipped
    for name in _names(folder):
        if name.endswith(OPEN):
            _guarded(folder / name, _adopt, faults)
        elif name.startswith(".") and name.endswith(_NEW):
            _guarded(folder / name, _sweep, faults)
    segments = []
    for name in _names(folder):
        if name.endswith(SEALED) and not name.startswith("."):
            segment = _guarded(folder / name, _check, faults)
            if segment is not None:
                segments.append(segment)
    return sorted(segments)


def set_entry_aside(path: Path, why: str) -> Path:
    """Moves an entry to the folder of what could not be collected, whatever it is.

    Raises OSError when it cannot be moved.
    """
    place = damaged_folder(path.parent) / f"{new_id()}-{_printable(path.name)}"
    path.rename(place)
    log.warning("journal: %s (%s) was moved to %s", _printable(path.name), why, place)
    return place


def count_set_aside(folder: Path) -> int:
    """How many files lie in the folder of what could not be collected."""
    try:
        return sum(1 for _ in (folder / DAMAGED_FOLDER).iterdir())
    except OSError:
        return 0


def damaged_folder(folder: Path) -> Path:
    """The folder beside the segments for what could not be collected. Raises OSError."""
    return make_folder(folder / DAMAGED_FOLDER, linked=False)


def unsealed_segments(folder: Path) -> set[str]:
    """The names of the segments that are being written, without their suffix."""
    return {path.stem for path in folder.glob(f"*{OPEN}")}


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []


def _guarded(path: Path, work: Callable[[Path], Path | None], skipped: list[str]) -> Path | None:
    """Does the work on an entry; one that is no segment is set aside, or noted as skipped."""
    try:
        return work(path)
    except FileNotFoundError:
        return None  # somebody else was quicker
    except OSError as error:
        if error.errno not in FAULT_OF_THE_ENTRY:
            raise
        why = error.strerror or type(error).__name__
    try:
        set_entry_aside(path, why)
    except FileNotFoundError:
        pass
    except OSError:
        skipped.append(f"{_printable(path.name)}: {why}")
    return None


def _check(path: Path) -> Path:
    """The path of a sealed segment that can be read; its new one if its name had to change.

    Raises OSError when it is no readable file.
    """
    os.close(open_regular(path, os.O_RDONLY))
    if _PLAIN_NAME.fullmatch(path.name):
        return path
    plain = path.with_name(f"{new_id()}-renamed{SEALED}")
    path.rename(plain)
    log.warning("journal: a segment with an odd name is now %s", plain.name)
    return plain


def _printable(name: str) -> str:
    """A file's name without what a terminal, a page or a path could trip over."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name).lstrip(".")[:120] or "_"


def _adopt(path: Path) -> None:
    """Seals a segment whose lock is free; removes an empty one. Raises OSError."""
    fd = open_regular(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_size:
            path.rename(path.with_suffix(SEALED))
        else:
            path.unlink()
    except (BlockingIOError, FileNotFoundError):
        pass  # its writer lives, or has sealed it between our open and our lock
    finally:
        os.close(fd)


def _sweep(path: Path) -> None:
    """Removes the empty file of a writer that died between creating and naming it.

    Its writer holds no lock on it for the moment before it locks it, hence the age, by a clock that
    may be wrong: a file from the future is old too.
    """
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.ENXIO, "not a regular file")
    if abs(time.time() - state.st_mtime) > _NEW_IS_STALE_AFTER_S:
        path.unlink()
