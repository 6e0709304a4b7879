"""A few asyncio tasks that do the same work, started while there is some, and stopped together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from store.errors import UnderstudyError

log = logging.getLogger("understudy.live")


class Workers:
    """At most `most` calls of `work` at a time. Used by one event loop alone."""

    def __init__(self, name: str, most: int, work: Callable[[], Awaitable[None]]) -> None:
        self._name, self._most, self._work = name, most, work
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether one is at work."""
        return bool(self._tasks)

    def start(self, items: int) -> None:
        """Lets as many work as there are items, besides those that are at work already."""
        for _ in range(min(items, self._most - len(self._tasks))):
            task = asyncio.create_task(self._one(), name=self._name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancels what is at work, and waits until it has ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self) -> None:
        try:
            await self._work()
        except UnderstudyError as error:
            log.error("%s: %s", self._name, error)
        except Exception as error:  # a fault of ours ends one worker; its message may quote a row
            log.error("%s broke: %s", self._name, type(error).__name__)
