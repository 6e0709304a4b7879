"""A building block to compare with: uvicorn and aiohttp, and nothing between them.

It relays `POST` to the upstream that UNDERSTUDY_BENCH_UPSTREAM names, as a careful service in
Python would do it with the usual libraries. It parses nothing, decides nothing and logs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp

UPSTREAM_VARIABLE = "UNDERSTUDY_BENCH_UPSTREAM"
_DROPPED = (b"host", b"content-length", b"connection")
_RETURNED = (b"content-type", b"cache-control")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Relay:
    """The ASGI application."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._http: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name not in _DROPPED
        ]
        assert self._http is not None
        url = self._upstream + scope["path"]
        async with self._http.post(url, data=body, headers=headers) as answer:
            returned = [(n.lower(), v) for n, v in answer.raw_headers if n.lower() in _RETURNED]
            await send(
                {"type": "http.response.start", "status": answer.status, "headers": returned}
            )
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._http = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0), auto_decompress=False
                )
            elif self._http is not None:
                await self._http.close()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return


app = Relay(os.environ.get(UPSTREAM_VARIABLE, ""))
