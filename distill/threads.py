"""The threads of an event loop, with a way to wait for everything that they are doing.

A task that is cancelled while it waits for a thread leaves the thread running: what it writes comes
after the task's end. Code that cancels a task in order to undo its work waits for that first.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """To be set as the loop's default executor: asyncio.to_thread and the Store then run here."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="control")
        self._running: set[Future[object]] = set()
        self._lock = threading.Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Runs work in a thread."""
        future = super().submit(fn, *args, **kwargs)
        with self._lock:
            self._running.add(future)  # type: ignore[arg-type]  # it is only waited for
        future.add_done_callback(self._discard)
        return future

    async def settled(self) -> None:
        """Returns when everything that was submitted before the call is done."""
        with self._lock:
            running = [asyncio.wrap_future(future) for future in self._running]
        await asyncio.gather(*running, return_exceptions=True)

    def _discard(self, future: Future[T]) -> None:
        with self._lock:
            self._running.discard(future)
