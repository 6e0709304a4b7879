"""The state of the control plane, in a page of memory that `serve` and the proxies read.

The control plane writes it some times a second, from its event loop. So `serve` notices one that
hangs, and the proxies can say how it is without asking it. It is written by one process and read
without a lock: each number is atomic.
"""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import dataclass

from store.process.shared_page import create_page

# a control plane without a heartbeat for so long does not answer
SILENT_AFTER_S = 1.5
BEAT_S = 0.25
SLOW_QUERY_S = 30.0  # one that others may be waiting for
# `serve` replaces it then; a computation that holds the interpreter may take some seconds
HUNG_AFTER_S = 20.0
STUCK_AFTER_S = 600.0  # of a query; rewriting the database file may take longer, and does not count
_BEAT, _PID, _COLLECTING, _SET_ASIDE, _SKIPPED, _QUERY_S, _FIELDS = range(7)
_BYTES = 8  # of a number


@dataclass(frozen=True, slots=True)
class ControlState:
    """The control plane as it described itself last."""

    pid: int  # 0: none has started yet
    silent_s: float  # since its last heartbeat
    collecting: bool  # whether the last round of collecting went well
    set_aside: int  # entries of the journal's folder `damaged`
    skipped: int  # entries of the journal that can be neither collected nor moved
    query_s: float  # how long its oldest query has been running

    @property
    def alive(self) -> bool:
        """Whether it answers; True before the first one has started."""
        return self.pid == 0 or self.silent_s < SILENT_AFTER_S

    @property
    def answers(self) -> bool:
        """Whether it is worth while to wait for an answer of it."""
        return self.alive and self.query_s < SLOW_QUERY_S

    @property
    def hung(self) -> str | None:
        """Why it has to be replaced; None when it has not."""
        if self.pid and self.silent_s > HUNG_AFTER_S:
            return f"has not moved for {self.silent_s:.0f} s"
        if self.pid and self.query_s > STUCK_AFTER_S:
            return f"waits for a query for {self.query_s:.0f} s"
        return None


class ControlPage:
    """The page. Children inherit its descriptor; it ends with the last process that has it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._page = mmap.mmap(fd, _FIELDS * _BYTES)
        self._numbers = memoryview(self._page).cast("d")

    @classmethod
    def create(cls) -> ControlPage:
        """An empty page; its descriptor is inheritable."""
        return cls(create_page(_FIELDS * _BYTES))

    def close(self) -> None:
        """Closes the page and its descriptor."""
        self._numbers.release()
        self._page.close()
        os.close(self.fd)

    def beat(self, query_s: float = 0.0) -> None:
        """Writes a heartbeat of this process. `query_s`: the age of its oldest running query."""
        self._numbers[_QUERY_S] = query_s
        self._numbers[_PID] = os.getpid()
        self._numbers[_BEAT] = time.monotonic()

    def collected(self, *, ok: bool, set_aside: int, skipped: int) -> None:
        """Writes the outcome of a round of collecting."""
        self._numbers[_COLLECTING] = ok
        self._numbers[_SET_ASIDE] = set_aside
        self._numbers[_SKIPPED] = skipped

    @property
    def state(self) -> ControlState:
        """As it stands now."""
        numbers = self._numbers
        pid = int(numbers[_PID])
        return ControlState(
            pid=pid,
            silent_s=time.monotonic() - numbers[_BEAT] if pid else 0.0,
            collecting=bool(numbers[_COLLECTING]) or not pid,
            set_aside=int(numbers[_SET_ASIDE]),
            skipped=int(numbers[_SKIPPED]),
            query_s=numbers[_QUERY_S],
        )
