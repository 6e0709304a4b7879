"""An answer on its way: a connection fills it, one reader empties it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from proxy.http.asgi import Headers
from proxy.upstream.errors import Broke, UpstreamError
from proxy.upstream.response import Response


class Source(Protocol):
    """What an answer asks of its connection."""

    loop: asyncio.AbstractEventLoop

    def read_on(self) -> None:
        """Reads again after a pause for the reader."""

    def drop(self, error: UpstreamError) -> None:
        """Ends the answer, and closes the connection."""


class Arriving(Response):
    """An answer of which more may come."""

    __slots__ = ("_waiter", "begun", "chunks", "connection", "error", "unread", "whole")

    def __init__(self, connection: Source) -> None:
        self.status = 0  # for now
        self.headers: Headers = []
        self.connection: Source | None = connection  # None: nothing more will come
        self.begun = False  # whether the status and the headers are here
        self.chunks: list[bytes] = []
        self.unread = 0  # bytes off the wire since something was last taken
        self.whole = False  # whether the reader waits for the end
        self.error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Waits for the status and the headers. Raises Slow or Broke."""
        try:
            while not self.begun:
                if self.connection is None:
                    raise self.error or Broke
                await self.news(self.connection)
        except asyncio.CancelledError:
            self.close()
            raise

    async def next_chunk(self) -> bytes:
        """As Response has it."""
        try:
            while not self.chunks:
                if self.connection is None:
                    if self.error is not None:
                        raise self.error
                    return b""
                await self.news(self.connection)
        except asyncio.CancelledError:
            self.close()
            raise
        return self._take()

    async def read(self) -> bytes:
        """As Response has it."""
        if self.connection is not None:
            self.whole = True
            self.connection.read_on()
            try:
                while self.connection is not None:
                    await self.news(self.connection)
            except asyncio.CancelledError:
                self.close()
                raise
        if self.error is not None:
            raise self.error
        return self._take()

    def close(self) -> None:
        """As Response has it."""
        if self.connection is not None:
            self.connection.drop(Broke())

    def news(self, connection: Source) -> asyncio.Future[None]:
        """What to wait for until the connection has something to say.

        Who is cancelled meanwhile closes this answer, since nobody else will read it.
        """
        self._waiter = waiter = connection.loop.create_future()
        return waiter

    def wake(self) -> None:
        """Ends a wait."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _take(self) -> bytes:
        chunks = self.chunks
        taken = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.unread = 0
        if self.connection is not None:
            self.connection.read_on()
        return taken
