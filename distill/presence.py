"""What others see of the control plane: its heartbeats, and the server of its status API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from store.process.control_page import BEAT_S, ControlPage

LAST_ANSWERS_S = 2  # for requests under way at the stop; then they are cut off

Application = Callable[[Any, Any, Any], Awaitable[None]]  # ASGI


class Heart:
    """Writes heartbeats, for as long as the event loop runs, and how long the database takes."""

    def __init__(self, page: ControlPage | None) -> None:
        self._page = page
        self._began: float | None = None  # the opening that is under way
        self.query_s: Callable[[], float] = self._opening_s  # the age of the oldest running query

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Inside, the database is being opened."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._began = None

    def _opening_s(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began

    async def beat(self) -> None:
        while self._page is not None:
            self._page.beat(self.query_s())
            await asyncio.sleep(BEAT_S)


class StatusServer:
    """Serves the status API on loopback: one application after the other, on one port."""

    def __init__(self, port: int) -> None:
        self._app: Application | None = None
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._answer,
                interface="asgi3",
                host="127.0.0.1",
                port=port,
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=LAST_ANSWERS_S,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    def show(self, app: Application) -> None:
        """Answers with this application from now on."""
        self._app = app
        if self._serving is None:
            # `_serve`, because `serve` would take the signals for itself
            self._serving = asyncio.create_task(self._server._serve())

    async def until_stopped(self, stop: asyncio.Event) -> None:
        """Returns at a stop, or when it cannot serve any more."""
        assert self._serving is not None
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait({self._serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def stop(self) -> None:
        """Closes the port. Returns soon, whatever a request waits for."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        assert self._app is not None
        await self._app(scope, receive, send)
