"""The teacher of a campaign: answers well or in a hostile way, and remembers what it sent.

What it sent is the oracle: a client of the product may get an error where the teacher gave none
only if a fault of the campaign explains it (tests.campaign.oracle).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.campaign import wire
from tests.campaign.wire import JsonObject

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset
_ODD_STATUSES = (299, 400, 401, 403, 404, 408, 409, 418, 422, 429, 451, 500, 502, 503, 520, 529)
_HUGE = "x" * (1 << 20)


@dataclass(slots=True)
class Sent:
    """What the teacher sent for one attempt of a client."""

    way: str
    status: int = 0  # 0: no head
    body: bytes = b""  # as a client reads it, without framing and coding
    whole: bool = False  # whether all of it was sent, as it was meant


@dataclass(slots=True)
class Asked:
    """One request, and the connection to answer it on."""

    number: str
    stream: bool
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sent: Sent
    draw: random.Random

    async def answer(
        self,
        status: int,
        pieces: list[bytes],
        kind: str,
        *,
        framing: str = "length",
        pause_s: float = 0.0,
        extra: str = "",
        coded: bytes | None = None,  # what goes over the wire for the pieces
    ) -> bool:
        """Sends a whole answer. Returns whether the connection may be used again."""
        self.sent.status, self.sent.body = status, b"".join(pieces)
        head = f"HTTP/1.1 {status} Scripted\r\ncontent-type: {kind}\r\n{extra}"
        pieces = pieces if coded is None else [coded]
        if framing == "length":
            head += f"content-length: {sum(map(len, pieces))}\r\n"
        elif framing == "chunked":
            head += "transfer-encoding: chunked\r\n"
        else:
            head += "connection: close\r\n"
        self.writer.write(f"{head}\r\n".encode())
        for piece in pieces:
            if pause_s:
                await self.writer.drain()
                await asyncio.sleep(pause_s)
            framed = b"%x\r\n%b\r\n" % (len(piece), piece)
            self.writer.write(framed if framing == "chunked" else piece)
        if framing == "chunked":
            self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()
        self.sent.whole = not self.writer.is_closing()
        return framing != "close"

    async def good(self, *, pause_s: float = 0.0, padding: str = "", done: bool = True) -> bool:
        """The right answer."""
        if not self.stream:
            body = wire.plain(self.number, padding)
            return await self.answer(200, [body], "application/json", pause_s=pause_s)
        events = wire.events(self.number, padding)
        return await self.answer(
            200,
            events if done else events[:-1],
            "text/event-stream",
            framing="chunked",
            pause_s=pause_s,
        )

    def begin(self, *, chunked: bool) -> list[bytes]:
        """Sends the head of an answer, and returns the pieces of it that are to come."""
        kind = "text/event-stream" if self.stream else "application/json"
        body = wire.events(self.number) if self.stream else [wire.plain(self.number)]
        length = sum(map(len, body))
        framing = "transfer-encoding: chunked" if chunked else f"content-length: {length}"
        self.sent.status, self.sent.body = 200, b"".join(body)
        self.writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n".encode())
        return body

    def reset(self) -> None:
        """Closes the connection with a reset."""
        raw = self.writer.get_extra_info("socket")
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()


Way = Callable[[Asked], Awaitable[bool]]  # False: the connection ends


async def _slow(asked: Asked) -> bool:
    await asyncio.sleep(asked.draw.uniform(0.2, 1.5))
    return await asked.good()


async def _in_drops(asked: Asked) -> bool:
    return await asked.good(pause_s=asked.draw.uniform(0.01, 0.3))


async def _odd_status(asked: Asked) -> bool:
    status = asked.draw.choice(_ODD_STATUSES)
    body = json.dumps({"error": {"message": "no", "type": "odd", "code": None}}).encode()
    return await asked.answer(status, [body], "application/json")


async def _no_json(asked: Asked) -> bool:
    return await asked.answer(200, [b'{"choices": [{"mess'], "application/json")


async def _nothing(asked: Asked) -> bool:
    return await asked.answer(200, [], "application/json")


async def _huge_line(asked: Asked) -> bool:
    return await asked.good(padding=_HUGE)


async def _other_kind(asked: Asked) -> bool:
    if asked.stream:
        return await asked.answer(200, wire.events(asked.number), "text/plain", framing="chunked")
    return await asked.answer(200, [wire.plain(asked.number)], "text/event-stream")


async def _until_close(asked: Asked) -> bool:
    kind = "text/event-stream" if asked.stream else "application/json"
    body = wire.events(asked.number) if asked.stream else [wire.plain(asked.number)]
    return await asked.answer(200, body, kind, framing="close")


async def _without_done(asked: Asked) -> bool:
    return await asked.good(done=False)


async def _compressed(asked: Asked) -> bool:
    kind = "text/event-stream" if asked.stream else "application/json"
    body = b"".join(wire.events(asked.number)) if asked.stream else wire.plain(asked.number)
    extra = "content-encoding: gzip\r\n"
    return await asked.answer(200, [body], kind, extra=extra, coded=gzip.compress(body))


async def _error_in_success(asked: Asked) -> bool:
    body = b'{"error": {"message": "overloaded", "type": "server_error"}}'
    return await asked.answer(200, [body], "application/json")


async def _reset_at_once(asked: Asked) -> bool:
    asked.reset()
    return False


async def _close_at_once(asked: Asked) -> bool:
    return False


async def _half_a_head(asked: Asked) -> bool:
    asked.writer.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
    await asked.writer.drain()
    return False


async def _no_http(asked: Asked) -> bool:
    asked.writer.write(asked.draw.randbytes(64) + b"\r\n\r\n")
    await asked.writer.drain()
    return False


async def _half_a_body(asked: Asked) -> bool:
    body = b"".join(asked.begin(chunked=False))
    asked.writer.write(body[: len(body) // 2])
    await asked.writer.drain()
    await asyncio.sleep(asked.draw.choice((0, 0.5)))
    return False


async def _half_then_reset(asked: Asked) -> bool:
    pieces = asked.begin(chunked=True)
    for piece in pieces[: (len(pieces) + 1) // 2]:
        asked.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    await asked.writer.drain()
    await asyncio.sleep(asked.draw.choice((0.02, 0.5)))
    asked.reset()
    return False


async def _bad_chunk(asked: Asked) -> bool:
    pieces = asked.begin(chunked=True)
    asked.writer.write(b"%x\r\n%b\r\nzz\r\n" % (len(pieces[0]), pieces[0]))
    await asked.writer.drain()
    return False


WAYS: dict[str, Way] = {
    "slow": _slow,
    "in drops": _in_drops,
    "odd status": _odd_status,
    "no JSON": _no_json,
    "nothing": _nothing,
    "a huge line": _huge_line,
    "another content type": _other_kind,
    "until the connection closes": _until_close,
    "without an end mark": _without_done,
    "compressed": _compressed,
    "an error in a success": _error_in_success,
    "a reset": _reset_at_once,
    "a hang-up": _close_at_once,
    "half a head": _half_a_head,
    "no HTTP": _no_http,
    "half a body": _half_a_body,
    "half, then a reset": _half_then_reset,
    "a bad chunk": _bad_chunk,
}


class Teacher:
    """The server. `hostile`: the ways that it takes beside good answers; none: it is good."""

    def __init__(self, seed: str) -> None:
        self.port = 0
        self.hostile: tuple[str, ...] = ()
        self.sent: dict[str, list[Sent]] = {}  # by attempt
        self.audits = 0
        self._seed = seed
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        """Listens, on the same port each time."""
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, backlog=512, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listens no more and breaks off all connections."""
        if self._server is not None:
            self._server.close()
        for task, writer in list(self._connections.items()):
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            while await self._serve(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            del self._connections[task]
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; False when the connection ends."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        pairs = (line.partition(":") for line in head.split("\r\n")[1:])
        headers = {name: value.strip() for name, _, value in pairs}
        body: JsonObject = json.loads(await reader.readexactly(int(headers["content-length"])))
        number, way = wire.number_in(body), ""
        draw = random.Random(f"{self._seed} {number}")
        if wire.ATTEMPT in headers and self.hostile and draw.random() < 0.7:
            way = draw.choice(self.hostile)
        sent = Sent(way)
        if wire.ATTEMPT in headers:
            self.sent.setdefault(headers[wire.ATTEMPT], []).append(sent)
        else:
            self.audits += 1
        asked = Asked(number, bool(body.get("stream")), reader, writer, sent, draw)
        return await (WAYS[way](asked) if way else asked.good())
