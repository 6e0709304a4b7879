"""A server on loopback that sends exactly the bytes a test gives, in exactly these pieces.

    async with raw_server(b"HTTP/1.1 204 No Content\\r\\n\\r\\n") as server:
        …                                 # each request on each connection gets this answer
    assert server.connections == 1
    assert server.requests[0].startswith(b"GET / HTTP/1.1\\r\\n")

It runs in the test's own event loop. `tests/helpers/teacher_server.py` is the one for whole
answers.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from proxy.upstream.client import Upstream

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture(params=["uvloop", "asyncio"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """For test files that import it: each test runs in the proxy's event loop and in Python's."""
    if request.param == "uvloop":
        return uvloop.EventLoopPolicy()
    return asyncio.DefaultEventLoopPolicy()


class RawServer:
    """What a test asks of the server."""

    def __init__(self) -> None:
        self.port = 0
        self.scheme = "http"
        self.connections = 0  # so far
        self.open = 0  # now
        self.requests: list[bytes] = []  # head and body as they came

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/"

    async def until_open(self, count: int) -> None:
        """Waits until so many connections are left."""
        async with asyncio.timeout(10):
            while self.open != count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@asynccontextmanager
async def raw_server(
    answer: bytes | Handler = OK,
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    hangs_up: bool = False,
) -> AsyncIterator[RawServer]:
    """`answer`: bytes for every request, or what serves a connection. `hangs_up`: after one."""
    server = RawServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            server.requests.append(request)
            assert isinstance(answer, bytes)
            writer.write(answer)
            await writer.drain()
            if hangs_up:
                break

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        server.open += 1
        try:
            await (serve if isinstance(answer, bytes) else answer)(reader, writer)
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            server.open -= 1
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError, ssl.SSLError):
                await writer.wait_closed()

    listening = await asyncio.start_server(connected, host, 0, ssl=tls, backlog=512)
    server.port = listening.sockets[0].getsockname()[1]
    server.scheme = "http" if tls is None else "https"
    try:
        yield server
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes | None:
    """One request, framing and all; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if fields.get(b"transfer-encoding") == b"chunked":
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await reader.readuntil(b"\r\n")
        return head + body
    return head + await reader.readexactly(int(fields.get(b"content-length", 0)))


@asynccontextmanager
async def upstream(**settings: Any) -> AsyncIterator[Upstream]:
    """An open client."""
    client = Upstream(**{"connect_timeout_s": 10, "read_timeout_s": 20, **settings})
    await client.open()
    try:
        yield client
    finally:
        await client.close()


async def whole(
    client: Upstream, url: str, method: str = "POST", body: bytes | None = b"{}"
) -> bytes:
    """The body of an answer."""
    response = await client.send(method, url, [], body)
    try:
        return await response.read()
    finally:
        response.close()


async def in_pieces(client: Upstream, url: str) -> bytes:
    """The same, read as it comes."""
    response = await client.send("POST", url, [], b"{}")
    got = []
    while chunk := await response.next_chunk():
        got.append(chunk)
    response.close()
    return b"".join(got)
