"""A client of streamed answers, as no load generator reports when chunks arrive.

It runs under uvloop, and parses a stream after its end.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop

from bench.load import HEADERS, PATH, chat_body

TIMEOUT_S = 60.0
_DONE = b"data: [DONE]"


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """The results of one cell."""

    connections: int
    seconds: float
    streams: int  # that were answered with 200 and ended with [DONE]
    broken: int  # the others
    events: int  # of the whole ones, without [DONE]
    first_ms: list[float] = field(repr=False)  # from the request to the first event, a stream

    @property
    def first_p50_ms(self) -> float:
        return statistics.median(self.first_ms) if self.first_ms else float("nan")

    @property
    def first_p99_ms(self) -> float:
        if len(self.first_ms) < 2:
            return self.first_p50_ms
        return statistics.quantiles(self.first_ms, n=100, method="inclusive")[98]


def stream_load(
    url: str,
    model: str,
    *,
    connections: int,
    seconds: float,
    headers: Mapping[str, str] = HEADERS,
) -> StreamLoad:
    """Reads streams over a number of connections for some seconds, sequentially on each.

    Streams that have begun are read to their end. `url`: without /v1.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_load(url, model, connections, seconds, headers))


@dataclass(slots=True)
class _Stream:
    """One answer."""

    ended: asyncio.Future[None]
    began: float = 0.0
    first: float | None = None
    status: int = 0
    pieces: list[bytes] = field(default_factory=list)


class _Client(asyncio.Protocol):
    """One connection that is kept alive."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._stream: _Stream | None = None
        self._transport: asyncio.Transport | None = None

    async def ask(self, request: bytes) -> _Stream:
        """The whole answer. Raises ConnectionError when the connection is lost."""
        if self._transport is None:
            raise ConnectionError("closed")
        self._stream = stream = _Stream(asyncio.get_running_loop().create_future())
        stream.began = time.perf_counter()
        self._transport.write(request)
        await stream.ended
        return stream

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._stream is not None and not self._stream.ended.done():
            self._stream.ended.set_exception(ConnectionError("closed"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        stream = self._stream
        if stream is not None:
            if stream.first is None and b"data:" in body:
                stream.first = time.perf_counter()
            stream.pieces.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        stream = self._stream
        if stream is not None and not stream.ended.done():
            stream.status = self._parser.get_status_code()
            stream.ended.set_result(None)
        if self._parser.should_keep_alive():
            self._parser = httptools.HttpResponseParser(self)
        elif self._transport is not None:
            self._transport.close()


async def _load(
    url: str, model: str, connections: int, seconds: float, headers: Mapping[str, str]
) -> StreamLoad:
    request = _request(url, chat_body(model, stream=True), headers)
    began = time.perf_counter()
    results = await asyncio.gather(
        *(_connection(url, request, began + seconds) for _ in range(connections))
    )
    took = time.perf_counter() - began
    streams = [stream for of_one in results for stream in of_one]
    whole = [s for s in streams if s is not None and s.status == 200 and s.first is not None]
    bodies = [b"".join(stream.pieces) for stream in whole]
    complete = [(s, b) for s, b in zip(whole, bodies, strict=True) if _DONE in b]
    return StreamLoad(
        connections=connections,
        seconds=took,
        streams=len(complete),
        broken=len(streams) - len(complete),
        events=sum(body.count(b"data:") - 1 for _, body in complete),
        first_ms=[(cast(float, s.first) - s.began) * 1000 for s, _ in complete],
    )


async def _connection(url: str, request: bytes, until: float) -> list[_Stream | None]:
    """The answers that one connection got; None: broken."""
    results: list[_Stream | None] = []
    client = await _connect(url)
    while time.perf_counter() < until:
        if client.closed:  # as a server may after each answer
            client = await _connect(url)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                results.append(await client.ask(request))
        except (ConnectionError, TimeoutError):
            results.append(None)
            client.close()
    client.close()
    return results


async def _connect(url: str) -> _Client:
    at = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(_Client, at.hostname or "", at.port or 80)
    return client


def _request(url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    at = urlsplit(url)
    lines = [
        f"POST {at.path}{PATH} HTTP/1.1",
        f"host: {at.netloc}",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
