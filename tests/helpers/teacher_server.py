"""A scriptable HTTP server on loopback: a teacher, or a student, that does as a test tells it.

    with LoopbackServer() as teacher:
        teacher.script(completion("Yes."), error(429, "slow down"))
        …                                      # two requests get these, later ones an echo
        assert teacher.requests[0].json["model"] == "gpt-4o"

It speaks HTTP/1.1 by hand, so that a reply can be cut, delayed or broken off at any byte. It runs
in a thread of its own and serves tests of any kind, sync or async.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    path: str  # with its query string
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What to answer, and how to fail at it."""

    chunks: tuple[bytes, ...] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    framing: Literal["length", "chunked", "close"] = "length"
    delay_s: float = 0.0  # before the headers
    pause_s: float = 0.0  # before each chunk
    until: threading.Event | None = None  # waited for before the second half of the chunks
    breaks: bool = False  # hang up after the last chunk instead of ending the body
    drops: bool = False  # hang up instead of answering at all

    def slow(self, delay_s: float) -> Reply:
        return replace(self, delay_s=delay_s)

    def paced(self, pause_s: float) -> Reply:
        return replace(self, pause_s=pause_s)

    def held(self, until: threading.Event) -> Reply:
        return replace(self, until=until)

    def broken(self, after: int) -> Reply:
        """The same, hanging up after so many chunks."""
        return replace(self, chunks=self.chunks[:after], breaks=True)

    def with_headers(self, **more: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in more.items()}
        return replace(self, headers={**self.headers, **named})


Answerer = Callable[[Received], Reply]
DROP = Reply(drops=True)


def completion(
    text: str,
    *,
    model: str = "gpt-4o-2024-08-06",
    logprobs: list[float] | None = None,
    finish_reason: str = "stop",
) -> Reply:
    """A plain chat completion; with token log-probabilities as a student gives them."""
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": finish_reason,
    }
    if logprobs is not None:
        tokens = [{"token": "t", "logprob": value, "top_logprobs": []} for value in logprobs]
        choice["logprobs"] = {"content": tokens}
    payload = {
        "id": "chatcmpl-teacher",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [choice],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    return Reply((json.dumps(payload).encode(),))


def events(*chunks: bytes) -> Reply:
    """A stream of server-sent events, each piece in a chunk of its own."""
    return Reply(chunks, headers={"content-type": "text/event-stream"}, framing="chunked")


def stream(text: str, *, usage: bool = False, model: str = "gpt-4o-2024-08-06") -> Reply:
    """A streamed chat completion, a chunk a word."""
    head = {
        "id": "chatcmpl-teacher",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": model,
    }
    words = [word if n == 0 else f" {word}" for n, word in enumerate(text.split(" "))]
    deltas: list[tuple[dict[str, Any], str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        *[({"content": word}, None) for word in words],
        ({}, "stop"),
    ]
    payloads: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        for delta, finish in deltas
    ]
    if usage:
        counts = {"prompt_tokens": 7, "completion_tokens": len(words)}
        counts["total_tokens"] = 7 + len(words)
        payloads.append({**head, "choices": [], "usage": counts})
    lines = [b"data: %b\n\n" % json.dumps(payload).encode() for payload in payloads]
    return events(*lines, b"data: [DONE]\n\n")


def error(status: int, message: str, *, type: str = "some_error", code: str | None = None) -> Reply:
    """An error as OpenAI gives it."""
    payload = {"error": {"message": message, "type": type, "param": None, "code": code}}
    return Reply((json.dumps(payload).encode(),), status=status)


def echo(request: Received) -> Reply:
    """Answers a chat completion with the last message's text, and anything else with its path."""
    if not request.path.startswith("/v1/chat/completions"):
        return Reply((json.dumps({"path": request.path}).encode(),))
    body = request.json
    text = f"echo: {body['messages'][-1]['content']}"
    if body.get("stream"):
        return stream(text, usage=bool((body.get("stream_options") or {}).get("include_usage")))
    return completion(text)


class LoopbackServer:
    """The server. `requests` is what came so far, `hang_ups` how many clients left mid-reply."""

    def __init__(self, answer: Answerer = echo, port: int = 0) -> None:
        self.answer = answer
        self.requests: list[Received] = []
        self.hang_ups = 0
        self.port = port  # 0: any
        self._scripted: deque[Reply] = deque()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loopback-server", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client is given."""
        return f"{self.url}/v1"

    def script(self, *replies: Reply) -> None:
        """The next requests get these replies, in order; after them `answer` decides again."""
        self._scripted.extend(replies)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops listening and hangs up. May be called again."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
            self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for _ in range(3):  # a connection that was just accepted becomes a task a turn later
            await asyncio.sleep(0)
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await _read_request(reader)) is not None:
                self.requests.append(request)
                reply = self._scripted.popleft() if self._scripted else self.answer(request)
                try:
                    if not await self._write(reply, request.method, reader, writer):
                        break
                except ConnectionError:
                    self.hang_ups += 1
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _write(
        self,
        reply: Reply,
        method: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Whether the connection may be used again."""
        if await self._left(reply.delay_s, reader) or reply.drops:
            return False
        headers = dict(reply.headers)
        if reply.framing == "length":
            whole = sum(map(len, reply.chunks)) + (1 if reply.breaks else 0)
            headers["content-length"] = str(whole)
        elif reply.framing == "chunked":
            headers["transfer-encoding"] = "chunked"
        else:
            headers["connection"] = "close"
        head = [f"HTTP/1.1 {reply.status} Scripted", *(f"{k}: {v}" for k, v in headers.items())]
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        if method != "HEAD":
            for number, chunk in enumerate(reply.chunks):
                await writer.drain()
                if await self._left(reply.pause_s, reader):
                    return False
                if reply.until is not None and number == len(reply.chunks) // 2:
                    while not reply.until.is_set():  # noqa: ASYNC110 - another thread's event
                        await asyncio.sleep(0.01)
                framed = b"%x\r\n%b\r\n" % (len(chunk), chunk)
                writer.write(framed if reply.framing == "chunked" else chunk)
            if reply.framing == "chunked" and not reply.breaks:
                writer.write(b"0\r\n\r\n")
        await writer.drain()
        return not reply.breaks and reply.framing != "close"

    async def _left(self, pause_s: float, reader: asyncio.StreamReader) -> bool:
        """Waits; whether the client hung up meanwhile."""
        if pause_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    # a stream tells of its end to readers only
                    while not _has_left(reader):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            if _has_left(reader):
                self.hang_ups += 1
                return True
        return False


def _has_left(reader: asyncio.StreamReader) -> bool:
    """Whether the client has closed the connection, or reset it."""
    return reader.at_eof() or reader.exception() is not None


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = head[0].split(" ", 2)
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, path, headers, body)
