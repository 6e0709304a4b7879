"""The state of a proxy's workers, in a page of memory that they share.

Each writes its own row and reads the others': its last heartbeat, its connections, the state of its
journal, the routes that it has. So a new connection goes to the least busy worker, and any worker
can report the health of all. A row is written by one process and read without a lock: each number
is atomic, and a row that is half new does no harm.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from store.process.shared_page import create_page

# a worker without a heartbeat for so long is dead, or stuck
SILENT_AFTER_S = 1.0
_BEAT, _CONNECTIONS, _JOURNAL_OK, _BACKLOG, _LOST, _ROUTES, _FIELDS = range(7)
_BYTES = 8  # of a number


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker's row."""

    worker: int
    alive: bool  # its last heartbeat is recent
    connections: int
    journal_ok: bool
    backlog: int  # lines of its journal that wait in memory
    lost: int  # lines dropped from a full backlog since it started


class Roster:
    """The page. Children inherit its descriptor; it ends with the last process that has it."""

    def __init__(self, fd: int, workers: int) -> None:
        self.fd = fd
        self.workers = workers
        self._page = mmap.mmap(fd, workers * _FIELDS * _BYTES)
        self._numbers = memoryview(self._page).cast("d")

    @classmethod
    def create(cls, workers: int) -> Roster:
        """An empty page for that many workers; its descriptor is inheritable."""
        return cls(create_page(workers * _FIELDS * _BYTES), workers)

    def close(self) -> None:
        """Closes the page and its descriptor."""
        self._numbers.release()
        self._page.close()
        os.close(self.fd)

    def beat(self, worker: int, connections: int) -> None:
        """Writes the worker's heartbeat and its number of connections."""
        row = worker * _FIELDS
        self._numbers[row + _CONNECTIONS] = connections
        self._numbers[row + _BEAT] = time.monotonic()

    def connected(self, worker: int, connections: int) -> None:
        """Writes the worker's number of connections."""
        self._numbers[worker * _FIELDS + _CONNECTIONS] = connections

    def journal(self, worker: int, *, ok: bool, backlog: int, lost: int) -> None:
        """Writes the state of the worker's journal."""
        row = worker * _FIELDS
        for field, value in ((_JOURNAL_OK, ok), (_BACKLOG, backlog), (_LOST, lost)):
            self._numbers[row + field] = value

    def routes(self, worker: int, digest: int) -> None:
        """Writes the digest of the routes that the worker has (store.files.routes)."""
        self._numbers[worker * _FIELDS + _ROUTES] = digest

    def routes_held(self) -> list[int]:
        """The digests of the living workers' routes."""
        return [
            int(self._numbers[worker * _FIELDS + _ROUTES])
            for worker in range(self.workers)
            if self.alive(worker)
        ]

    def leave(self, worker: int) -> None:
        """Marks the worker as not accepting connections."""
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
        """Whether the worker's last heartbeat is recent."""
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
