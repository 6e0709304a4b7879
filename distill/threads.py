"""The threads of an event loop, of which one can wait for all that they are doing now.

A task that is cancelled while it waits for a thread leaves the thread at work: what it writes comes
after the task's end. Whoever ends a task to undo what it did waits for that first.
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
    """To be set as the loop's default executor: asyncio.to_thread then runs here."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="control")
        self._under_way: set[Future[object]] = set()
        self._guard = threading.Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hands work to a thread."""
        future = super().submit(fn, *args, **kwargs)
        with self._guard:
            self._under_way.add(future)  # type: ignore[arg-type]  # it is only waited for
        future.add_done_callback(self._forget)
        return future

    async def settled(self) -> None:
        """Returns when everything that was handed over before the call is done."""
        with self._guard:
            waited_for = [asyncio.wrap_future(future) for future in self._under_way]
        await asyncio.gather(*waited_for, return_exceptions=True)

    def _forget(self, future: Future[T]) -> None:
        with self._guard:
            self._under_way.discard(future)
