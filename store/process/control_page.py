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
SLOW_QUERY_S = 10.0  # one that others may be waiting for
# `serve` replaces it then; a computation that holds the interpreter may take some seconds
HUNG_AFTER_S = 20.0
STUCK_AFTER_S = 600.0  # of a query; rewriting the database file may take longer, and does not count
USUAL_START_S = 15.0  # until then nobody misses the first one
FIRST_BEAT_AFTER_S = 60.0  # at most, from its start: it has imports to do first
_BEAT, _PID, _STARTED, _STARTS, _COLLECTING, _SET_ASIDE, _SKIPPED, _QUERY_S, _FIELDS = range(9)
_BYTES = 8  # of a number
_TEXT_BYTES = 1024  # of a fault in words, after its length
_PAGE_BYTES = _FIELDS * _BYTES + _BYTES + _TEXT_BYTES


@dataclass(frozen=True, slots=True)
class ControlState:
    """The control plane as it described itself last."""

    pid: int  # 0: none has started yet
    silent_s: float  # since its last heartbeat, or before the first one since its start
    collecting: bool  # whether the last round of collecting went well, if there was one
    set_aside: int  # entries of the journal's folder `damaged`
    skipped: int  # entries of the journal that can be neither collected nor moved
    query_s: float  # how long its oldest query has been running
    starting: bool = False  # started, and without a heartbeat yet
    first: bool = True  # none was there before it
    fault: str = ""  # why it does not work, in words

    @property
    def alive(self) -> bool:
        """Whether it answers; True as long as the first one is on its way."""
        if self.starting:
            return self.first and self.silent_s < USUAL_START_S
        return self.pid == 0 or self.silent_s < SILENT_AFTER_S

    @property
    def answers(self) -> bool:
        """Whether it is worth while to wait for an answer of it."""
        return self.alive and self.query_s < SLOW_QUERY_S

    @property
    def hung(self) -> str | None:
        """Why it has to be replaced; None when it has not."""
        if self.starting and self.silent_s > FIRST_BEAT_AFTER_S:
            return f"has not begun to work within {self.silent_s:.0f} s"
        if self.pid and not self.starting and self.silent_s > HUNG_AFTER_S:
            return f"has not moved for {self.silent_s:.0f} s"
        if self.pid and self.query_s > STUCK_AFTER_S:
            return f"waits for a query for {self.query_s:.0f} s"
        return None


class ControlPage:
    """The page. Children inherit its descriptor; it ends with the last process that has it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._page = mmap.mmap(fd, _PAGE_BYTES)
        self._numbers = memoryview(self._page)[: _FIELDS * _BYTES].cast("d")

    @classmethod
    def create(cls) -> ControlPage:
        """An empty page; its descriptor is inheritable."""
        return cls(create_page(_PAGE_BYTES))

    def close(self) -> None:
        """Closes the page and its descriptor."""
        self._numbers.release()
        self._page.close()
        os.close(self.fd)

    def started(self, pid: int) -> None:
        """Writes that a control plane was started: `serve` does, before its first heartbeat."""
        self._numbers[_BEAT] = self._numbers[_QUERY_S] = 0.0
        self._numbers[_STARTED] = time.monotonic()
        self._numbers[_STARTS] += 1
        self._numbers[_PID] = pid

    def beat(self, query_s: float = 0.0) -> None:
        """Writes a heartbeat of this process. `query_s`: the age of its oldest running query."""
        self._numbers[_QUERY_S] = query_s
        self._numbers[_PID] = os.getpid()
        self._numbers[_BEAT] = time.monotonic()

    def collected(self, *, ok: bool, set_aside: int, skipped: int) -> None:
        """Writes the outcome of a round of collecting."""
        self._numbers[_COLLECTING] = 1 if ok else -1
        self._numbers[_SET_ASIDE] = set_aside
        self._numbers[_SKIPPED] = skipped

    def say(self, fault: str) -> None:
        """Writes why it does not work; nothing when it does."""
        text = fault.encode()[:_TEXT_BYTES]
        place = _FIELDS * _BYTES + _BYTES
        self._length(0)
        self._page[place : place + len(text)] = text
        self._length(len(text))

    def _length(self, length: int) -> None:
        place = _FIELDS * _BYTES
        self._page[place : place + _BYTES] = length.to_bytes(_BYTES, "little")

    @property
    def _fault(self) -> str:
        place = _FIELDS * _BYTES + _BYTES
        length = int.from_bytes(self._page[place - _BYTES : place], "little")
        return self._page[place : place + min(length, _TEXT_BYTES)].decode(errors="replace")

    @property
    def state(self) -> ControlState:
        """As it stands now."""
        numbers = self._numbers
        pid, starts = int(numbers[_PID]), int(numbers[_STARTS])
        starting = bool(pid) and not numbers[_BEAT]
        since = numbers[_STARTED] if starting else numbers[_BEAT]
        return ControlState(
            pid=pid,
            silent_s=time.monotonic() - since if pid else 0.0,
            collecting=numbers[_COLLECTING] >= 0,
            set_aside=int(numbers[_SET_ASIDE]),
            skipped=int(numbers[_SKIPPED]),
            query_s=numbers[_QUERY_S],
            starting=starting,
            first=starts < 2,
            fault=self._fault,
        )
