"""The base of the background work on a student: a queue of traces, a few workers, a back-off."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from store.backoff import Backoff
from store.errors import UnderstudyError

log = logging.getLogger("understudy.monitor")


@dataclass(frozen=True, slots=True)
class QueuedTrace:
    """A logged request that waits in a queue."""

    trace_id: str
    answered_at: float  # when its client got the answer, seconds since the epoch


class BackgroundWorkers(ABC):
    """A queue that at most `concurrency` asyncio tasks work on. Used by one event loop alone."""

    def __init__(
        self,
        name: str,
        *,
        concurrency: int,
        first_backoff_s: float,
        max_backoff_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.closed = False  # no further work is begun
        self._name, self._concurrency, self._clock = name, concurrency, clock
        self._backoff = Backoff(first_s=first_backoff_s, max_s=max_backoff_s, clock=clock)
        self._queue: deque[QueuedTrace] = deque()  # oldest first
        self._in_progress = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def enqueue(self, trace_id: str, answered_at: float) -> None:
        """Adds a trace; the next `start` begins to work on it."""
        self._queue.append(QueuedTrace(trace_id, answered_at))

    @property
    def pending(self) -> int:
        """How many traces are not done yet, those in progress included."""
        return len(self._queue) + self._in_progress

    @property
    def busy(self) -> bool:
        """Whether a worker is running."""
        return bool(self._tasks)

    @property
    @abstractmethod
    def wait_reason(self) -> str:
        """Why no work is begun now, for the status; empty when it may be."""

    def start(self) -> None:
        """Starts workers for what is in the queue. Called on every tick of the monitor."""
        if not self._may_work():
            return
        for _ in range(min(len(self._queue), self._concurrency - len(self._tasks))):
            task = asyncio.create_task(self._work(), name=self._name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancels the workers and waits until they have ended."""
        self.closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @abstractmethod
    def _next(self) -> QueuedTrace | None:
        """Takes the next trace out of the queue; None when there is none to work on."""

    @abstractmethod
    async def _process(self, item: QueuedTrace) -> None:
        """Does the work on one trace. An exception ends its worker and is logged."""

    def _may_work(self) -> bool:
        return not self.closed and not self.wait_reason

    async def _work(self) -> None:
        try:
            while self._may_work() and (item := self._next()) is not None:
                self._in_progress += 1
                try:
                    await self._process(item)
                finally:
                    self._in_progress -= 1
        except UnderstudyError as error:
            log.error("%s: %s", self._name, error)
        except Exception as error:  # a bug ends one worker; its message may quote a prompt
            log.error("%s: failed with %s", self._name, type(error).__name__)
