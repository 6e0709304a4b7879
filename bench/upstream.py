"""The model that every gateway is measured against: as fast as Python can be, and always the same.

    .venv/bin/python -m bench.upstream --port 4300 [--chunks 100] [--pace-ms 2]

A chat completion of 300 bytes, or a stream. The model's name selects the kind of stream: `bench`
has `--chunks` chunks, paced; `bench-unpaced` as many, as fast as they can be sent; `bench-short`
has 3, paced. Nothing else of a request matters. Its own CPU time is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import cast

import httptools
import orjson
import uvloop

from bench.paths import ROOT

PACED, UNPACED, SHORT = MODELS = "bench", "bench-unpaced", "bench-short"
CHUNKS = 100
SHORT_CHUNKS = 3
PACE_MS = 2.0
ANSWER_BYTES = 300
_HEAD = {"id": "chatcmpl-bench-0000000000", "created": 1_700_000_000, "model": PACED}
_WORD = " and then some words"


def _padded(size: int) -> bytes:
    """A whole answer of exactly this size."""
    length, answer = 0, b""
    while len(answer) != size:
        length += size - len(answer) if answer else 1
        message = {"role": "assistant", "content": ("A fixed answer. " * length)[:length]}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        usage = {"prompt_tokens": 210, "completion_tokens": 20, "total_tokens": 230}
        whole = {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": usage}
        answer = orjson.dumps(whole)
    return answer


def _event(delta: dict[str, str], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    chunk = {**_HEAD, "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: %b\n\n" % orjson.dumps(chunk)


def _framed(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


def events(chunks: int) -> list[bytes]:
    """The server-sent events of a streamed answer, without `[DONE]`."""
    words = [_event({"content": _WORD}, None)] * (chunks - 2)
    return [_event({"role": "assistant", "content": ""}, None), *words, _event({}, "stop")]


@cache
def _framed_stream(chunks: int) -> tuple[bytes, ...]:
    return tuple(_framed(event) for event in events(chunks))


_BODY = _padded(ANSWER_BYTES)
WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY)
) + _BODY
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_LAST = _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class PacedUpstream(asyncio.Protocol):
    """One connection. A client sends its next request after the answer to the last one."""

    def __init__(self, chunks: int, pace_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunks = _framed_stream(chunks)
        self._short = _framed_stream(SHORT_CHUNKS)
        self._pace_s = pace_s
        self._body: list[bytes] = []
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            asyncio.Transport, transport
        )  # uvloop's transport is not an asyncio.Transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        body = b"".join(self._body)
        self._body.clear()
        if self._transport is None:
            return
        if b'"stream":true' in body or b'"stream": true' in body:
            chunks = iter(self._short if SHORT.encode() in body else self._chunks)
            self._transport.write(STREAM_HEAD + next(chunks))
            self._later(chunks, 0.0 if UNPACED.encode() in body else self._pace_s)
        else:
            self._transport.write(WHOLE)

    def _later(self, chunks: Iterator[bytes], pace_s: float) -> None:
        if pace_s:
            self._loop.call_later(pace_s, self._chunk, chunks, pace_s)
        else:
            self._loop.call_soon(self._chunk, chunks, pace_s)

    def _chunk(self, chunks: Iterator[bytes], pace_s: float) -> None:
        if self._transport is None:
            return
        chunk = next(chunks, None)
        if chunk is None:
            self._transport.write(_LAST)
        else:
            self._transport.write(chunk)
            self._later(chunks, pace_s)


async def _serve(port: int, chunks: int, pace_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: PacedUpstream(chunks, pace_s), "127.0.0.1", port, backlog=2048
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    server.close()


@contextmanager
def running_upstream(port: int, chunks: int, pace_ms: float) -> Iterator[str]:
    """An upstream in a process of its own. Gives its URL, without /v1."""
    options = ["--port", str(port), "--chunks", str(chunks), "--pace-ms", str(pace_ms)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.upstream", *options],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise SystemExit("the upstream did not start: is its port in use?")
        yield url
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Serves until a signal stops it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--chunks", type=int, default=CHUNKS, help="of a stream, 3 at least")
    parser.add_argument("--pace-ms", type=float, default=PACE_MS, help="between two chunks")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(arguments.port, max(3, arguments.chunks), arguments.pace_ms / 1000))


if __name__ == "__main__":
    main()
