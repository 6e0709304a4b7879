"""A proxy process whose memory is looked at, and teachers that are too fast or too slow."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.helpers.raw_server import RawServer, read_request
from tests.helpers.serving import ProxyProcess, settings, wait_until

MB = 1024 * 1024
GOOD: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"


class Measured:
    """A proxy process and its memory."""

    def __init__(self, proxy: ProxyProcess) -> None:
        self.proxy = proxy
        wait_until(self._answers, within_s=60)
        httpx.post(f"{proxy.url}{PATH}", json=GOOD)  # what is loaded with the first request
        self.metrics()
        self._process = psutil.Process(proxy.process.pid)
        self._before = self._process.memory_info().rss

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.proxy.url}/health").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def grown(self) -> float:
        """Megabytes that it has more than at the beginning."""
        return (self._process.memory_info().rss - self._before) / MB

    def health(self) -> dict[str, Any]:
        return dict(httpx.get(f"{self.proxy.url}/health", timeout=60).json())

    def metrics(self) -> dict[str, float]:
        """The values of this worker, by name."""
        lines = httpx.get(f"{self.proxy.url}/metrics", timeout=60).text.splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        return {name.partition("{")[0]: float(value) for name, value in pairs}

    @contextmanager
    def disk_that_takes(self, size: int) -> Iterator[None]:
        """No file of the process grows beyond so many bytes: the end of each write is refused."""
        before = self._process.rlimit(resource.RLIMIT_FSIZE)
        self._process.rlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            self._process.rlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def running(teacher_url: str, tmp_path: Path, **overrides: Any) -> Iterator[Measured]:
    with ProxyProcess(settings(teacher_url, tmp_path / "data", **overrides), tmp_path) as proxy:
        yield Measured(proxy)


@asynccontextmanager
async def proxied(teacher: RawServer, tmp_path: Path, **overrides: Any) -> AsyncIterator[Measured]:
    """The same, from within the event loop that the teacher runs in."""
    context = running(f"{teacher.url}v1", tmp_path, **overrides)
    found = await asyncio.to_thread(context.__enter__)
    try:
        yield found
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


def post(body: dict[str, Any], path: str = PATH) -> bytes:
    raw = json.dumps(body).encode()
    return b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (
        path.encode(),
        len(raw),
        raw,
    )


STREAMED = 20 * MB
# what a stream holds that nobody keeps: OpenAI pads its events so
PADDING = b'data: {"choices":[],"obfuscation":"%b"}\n\n' % (b"x" * 65_000)
BEGIN = b'data: {"id":"c-1","choices":[{"index":0,"delta":{"content":"good"}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Firehose:
    """A teacher that streams as fast as it is allowed to, once it is asked for a stream."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            if b'"stream": true' not in request:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                continue
            head = (
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
            )
            pieces = [BEGIN, *[PADDING] * (STREAMED // len(PADDING)), END]
            writer.write(head % sum(map(len, pieces)))
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                self.sent += len(piece)


class Gate:
    """A teacher that answers nobody until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader) is not None:
            self.asked += 1
            if self.asked > 1:  # the first is to warm up
                await self.open.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async def until_asked(self, count: int) -> None:
        async with asyncio.timeout(100):
            while self.asked < 1 + count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
