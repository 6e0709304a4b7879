"""What the workers of a proxy know of each other: a page of memory that they share.

Each writes its own row and reads the others': when it last beat, how many connections it has, how
its journal is. So a new connection goes to the worker that has the fewest, and whichever worker is
asked how the proxy is doing speaks for all. A row is written by one process and read without a
lock: each number is whole, and a row that is half new is as good as an old one.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

# a worker that has not beaten for so long is dead, or stuck
SILENT_AFTER_S = 1.0
_BEAT, _CONNECTIONS, _JOURNAL_OK, _BACKLOG, _LOST, _FIELDS = range(6)
_BYTES = 8  # of a number


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker, as it told of itself."""

    worker: int
    alive: bool  # it has beaten within the last second
    connections: int
    journal_ok: bool
    backlog: int  # lines of its journal that wait in memory
    lost: int  # lines dropped from a full backlog since it started


class Roster:
    """The page. It is handed on to children by its descriptor, and ends with the last of them."""

    def __init__(self, fd: int, workers: int) -> None:
        self.fd = fd
        self.workers = workers
        self._page = mmap.mmap(fd, workers * _FIELDS * _BYTES)
        self._numbers = memoryview(self._page).cast("d")

    @classmethod
    def create(cls, workers: int) -> Roster:
        """An empty page for so many workers; its descriptor may be inherited."""
        with tempfile.TemporaryFile(buffering=0) as file:
            file.truncate(workers * _FIELDS * _BYTES)
            fd = os.dup(file.fileno())
        os.set_inheritable(fd, True)
        return cls(fd, workers)

    def close(self) -> None:
        """Lets go of the page and of its descriptor."""
        self._numbers.release()
        self._page.close()
        os.close(self.fd)

    def beat(self, worker: int, connections: int) -> None:
        """Says that the worker lives and accepts connections."""
        row = worker * _FIELDS
        self._numbers[row + _CONNECTIONS] = connections
        self._numbers[row + _BEAT] = time.monotonic()

    def connected(self, worker: int, connections: int) -> None:
        """Says how many connections the worker has."""
        self._numbers[worker * _FIELDS + _CONNECTIONS] = connections

    def journal(self, worker: int, *, ok: bool, backlog: int, lost: int) -> None:
        """Says how the worker's journal is."""
        row = worker * _FIELDS
        for field, value in ((_JOURNAL_OK, ok), (_BACKLOG, backlog), (_LOST, lost)):
            self._numbers[row + field] = value

    def leave(self, worker: int) -> None:
        """Says that the worker accepts nothing any more, or is not there yet."""
        self._numbers[worker * _FIELDS + _BEAT] = 0.0

    def fewest(self, but: int) -> float:
        """The connections of the least busy living worker other than `but`; infinite if alone."""
        since = time.monotonic() - SILENT_AFTER_S
        numbers, fewest = self._numbers, float("inf")
        for worker in range(self.workers):
            row = worker * _FIELDS
            if worker != but and numbers[row + _BEAT] >= since:
                fewest = min(fewest, numbers[row + _CONNECTIONS])
        return fewest

    def alive(self, worker: int) -> bool:
        """Whether the worker has beaten lately."""
        return self._numbers[worker * _FIELDS + _BEAT] >= time.monotonic() - SILENT_AFTER_S

    def __iter__(self) -> Iterator[WorkerState]:
        for worker in range(self.workers):
            row = self._numbers[worker * _FIELDS : (worker + 1) * _FIELDS]
            yield WorkerState(
                worker=worker,
                alive=self.alive(worker),
                connections=int(row[_CONNECTIONS]),
                journal_ok=bool(row[_JOURNAL_OK]),
                backlog=int(row[_BACKLOG]),
                lost=int(row[_LOST]),
            )
