"""Copies of what was collected, so that a damaged database can be filled again from them.

    journal/kept/2026013118-0.jsonl     what was collected in an hour (UTC), 64 MB a file

The lines of a segment are appended to the hour's file once they are committed, and before the
segment is deleted. Files are deleted by age (`journal.keep_days`) and by their sum
(`journal.keep_mb`), the oldest first, and all of them before a disk is full. A copy is no promise:
a kill between the commit and the append leaves its segments out. Whoever reads the copies drops
what the database has: a trace twice is one trace.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from store.files.atomic import make_folder, open_regular

KEPT_FOLDER = "kept"  # beside the segments
MAX_FILE_BYTES = 64 << 20
RESERVE_BYTES = 256 << 20  # of the disk, which copies leave free for what is not a copy
RESERVE_SHARE = 0.05  # of the disk: the same for a small one
DAY_S = 86_400.0
_NAME = re.compile(r"(\d{10})-(\d+)\.jsonl")
_MB = 1 << 20


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One file of copies."""

    path: Path
    size: int  # bytes
    written: float  # seconds since the epoch


def to_delete(
    files: Sequence[KeptFile], *, now: float, max_age_s: float, max_bytes: float, missing: float
) -> list[KeptFile]:
    """Those of the files, oldest first, that are too old, too much, or take what the disk lacks.

    `missing`: bytes that are to be freed.
    """
    found, total, freed = [], sum(file.size for file in files), 0
    for file in files:
        if now - file.written > max_age_s or total > max_bytes or freed < missing:
            found.append(file)
            total -= file.size
            freed += file.size
    return found


class KeptSegments:
    """The copies in one journal. Safe to use from several threads."""

    def __init__(
        self,
        journal_dir: Path,
        *,
        days: float,
        megabytes: float,
        clock: Callable[[], float] = time.time,
        disk: Callable[[Path], tuple[int, int]] | None = None,
    ) -> None:
        """`days`, `megabytes`: how long, and how much is kept; nothing if one is 0.

        `disk` gives the bytes of the disk that a folder is on, and those that are free.
        """
        self.folder = journal_dir / KEPT_FOLDER
        self._max_age_s, self._max_bytes = days * DAY_S, megabytes * _MB
        self._clock, self._disk = clock, disk or _disk
        self._lock = threading.Lock()

    @property
    def active(self) -> bool:
        """Whether anything is kept."""
        return self._max_age_s > 0 and self._max_bytes > 0

    def keep(self, contents: Sequence[bytes]) -> None:
        """Appends the lines of segments, then deletes what is too old or too much.

        Raises OSError when they cannot be written; the copies are then as they were.
        """
        with self.exclusive():
            try:
                lines = [content.rstrip(b"\n") + b"\n" for content in contents if content.strip()]
                if lines and self.active and not self._missing():
                    make_folder(self.folder, linked=False)
                    self._append(b"".join(lines))
            finally:
                self._prune()

    def prune(self) -> None:
        """Deletes what is too old or too much."""
        with self.exclusive():
            self._prune()

    def files(self) -> list[KeptFile]:
        """The files, oldest first. What is no file of ours is not among them."""
        found = []
        with suppress(OSError):
            for path in sorted(self.folder.iterdir(), key=_order):
                state = path.lstat()
                if _NAME.fullmatch(path.name) and stat.S_ISREG(state.st_mode):
                    found.append(KeptFile(path, state.st_size, state.st_mtime))
        return found

    def last_line(self) -> bytes | None:
        """The last whole line that was kept; None without one."""
        for file in reversed(self.files()):
            with suppress(OSError), os.fdopen(open_regular(file.path), "rb") as opened:
                found = _last_line(opened.read())
                if found is not None:
                    return found
        return None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Inside, nothing is appended: a file may be written anew."""
        with self._lock:
            yield

    def _append(self, content: bytes) -> None:
        hour = time.strftime("%Y%m%d%H", time.gmtime(self._clock()))
        handle, size = self._open(hour, len(content))
        try:
            if _ends_torn(handle, size):
                content = b"\n" + content  # of one that was killed
            if os.write(handle, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, size)
            raise
        finally:
            os.close(handle)

    def _open(self, hour: str, more: int) -> tuple[int, int]:
        """The hour's file that has room for so many bytes more, and its size. Raises OSError."""
        number = 0
        while True:
            path = self.folder / f"{hour}-{number}.jsonl"
            with suppress(FileExistsError):
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
                return os.open(path, flags, 0o600), 0
            with suppress(OSError):  # what is no file of ours stays as it is
                handle = open_regular(path, os.O_RDWR | os.O_APPEND)
                size = os.fstat(handle).st_size
                if size + more <= MAX_FILE_BYTES:
                    return handle, size
                os.close(handle)
            number += 1

    def _missing(self) -> int:
        """Bytes that the disk lacks for its reserve."""
        place = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        try:
            total, free = self._disk(place)
        except OSError:
            return 0
        return max(0, int(min(RESERVE_BYTES, total * RESERVE_SHARE)) - free)

    def _prune(self) -> None:
        if not self.folder.is_dir():
            return
        doomed = to_delete(
            self.files(),
            now=self._clock(),
            max_age_s=self._max_age_s,
            max_bytes=self._max_bytes if self.active else 0,
            missing=self._missing(),
        )
        for file in doomed:
            with suppress(OSError):
                file.path.unlink()


def _order(path: Path) -> tuple[str, int]:
    match = _NAME.fullmatch(path.name)
    return (match[1], int(match[2])) if match else ("", 0)


def _last_line(content: bytes) -> bytes | None:
    """Of a file's content; a torn last line is none."""
    whole = content[: content.rfind(b"\n") + 1].rstrip(b"\n")
    return whole.rpartition(b"\n")[2] or None


def _ends_torn(handle: int, size: int) -> bool:
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"


def _disk(place: Path) -> tuple[int, int]:
    usage = shutil.disk_usage(place)
    return usage.total, usage.free
