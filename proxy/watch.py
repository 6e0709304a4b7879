"""Noticing that a client hangs up while nothing is being sent to it."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from proxy.asgi import Receive


class ClientWatch:
    """Cancels the task that answers a client when the client hangs up.

    A context around the work: whoever catches CancelledError in it finds in `gone` whether that is
    why. It must not begin before the whole body has been received, since it reads from there too.
    """

    __slots__ = ("_answering", "_at_once", "_receive", "_watcher", "gone")

    def __init__(self, receive: Receive, *, at_once: bool = True) -> None:
        self._receive = receive
        self._at_once = at_once
        self._answering: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False

    def begin(self) -> None:
        """Watches from now on; for a watch that did not begin at once."""
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    def __enter__(self) -> Self:
        self._answering = asyncio.current_task()
        if self._at_once:
            self.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._answering = None
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._answering is not None:
            self.gone = True
            self._answering.cancel()
