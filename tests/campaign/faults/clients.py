"""Clients that no server wishes for, beside the well-behaved ones."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.campaign import wire
from tests.campaign.faults.registry import fault
from tests.campaign.scene import Scene

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _request(number: str, *, stream: bool = True) -> bytes:
    body = json.dumps(
        {"model": wire.MODEL, "messages": wire.messages(number), "stream": stream}
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _each(
    scene: Scene,
    draw: random.Random,
    count: int,
    what: Callable[[Stream, random.Random], Awaitable[None]],
) -> None:
    """So many clients at once; what becomes of them is their own affair."""

    async def one(seed: float) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            stream = await asyncio.open_connection("127.0.0.1", scene.port)
            try:
                await what(stream, random.Random(seed))
            finally:
                stream[1].transport.abort()

    await asyncio.gather(*(one(draw.random()) for _ in range(count)))


@fault("dripping clients", weight=4)
async def dripping(scene: Scene, draw: random.Random) -> None:
    async def drip(stream: Stream, draw: random.Random) -> None:
        for byte in _request("drip 0")[: draw.randint(20, 60)]:
            stream[1].write(bytes([byte]))
            await stream[1].drain()
            await asyncio.sleep(0.05)

    await _each(scene, draw, draw.randint(5, 60), drip)


@fault("clients that vanish", weight=5)
async def vanishing(scene: Scene, draw: random.Random) -> None:
    """In the middle of a request, before the answer, or within it."""

    async def vanish(stream: Stream, draw: random.Random) -> None:
        request = _request(f"vanish {draw.randrange(10**9)}")
        stream[1].write(request[: draw.choice((len(request), draw.randrange(len(request))))])
        await stream[1].drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(draw.uniform(0, 0.3)):
                await stream[0].read(draw.choice((1, 200)))

    await _each(scene, draw, draw.randint(3, 40), vanish)


@fault("clients that say nothing", weight=2)
async def silent(scene: Scene, draw: random.Random) -> None:
    async def stay(stream: Stream, draw: random.Random) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(draw.uniform(0.5, 3.0)):
                await stream[0].read()

    await _each(scene, draw, draw.randint(10, 80), stay)


@fault("clients that do not speak HTTP", weight=3)
async def garbage(scene: Scene, draw: random.Random) -> None:
    async def shout(stream: Stream, draw: random.Random) -> None:
        begin = draw.choice((b"", b"POST /v1/chat/completions HTTP/1.1\r\n", b"\x16\x03\x01"))
        stream[1].write(begin + draw.randbytes(draw.randint(1, 4000)) + b"\r\n\r\n")
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await stream[0].read()

    await _each(scene, draw, draw.randint(2, 20), shout)


@fault("clients with bodies that never come", weight=2)
async def announcing(scene: Scene, draw: random.Random) -> None:
    async def announce(stream: Stream, draw: random.Random) -> None:
        stream[1].write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-length: %d\r\n\r\n{" % draw.choice((10, 60_000_000, 10**15))
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(draw.uniform(0.2, 2.0)):
                await stream[0].read()

    await _each(scene, draw, draw.randint(2, 30), announce)


@fault("clients that read slowly", weight=2)
async def slow_readers(scene: Scene, draw: random.Random) -> None:
    async def read(stream: Stream, draw: random.Random) -> None:
        stream[1].write(_request(f"slow {draw.randrange(10**9)}"))
        for _ in range(draw.randint(5, 30)):
            if not await stream[0].read(16):
                break
            await asyncio.sleep(0.05)

    await _each(scene, draw, draw.randint(2, 20), read)


@fault("more connections than descriptors", "workers", weight=0.7)
async def crowd(scene: Scene, draw: random.Random) -> None:
    """What is beyond gets an answer in words, for as long as it lasts."""

    async def stay(stream: Stream, draw: random.Random) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                await stream[0].read()

    with scene.lasting("crowded"):
        await _each(scene, draw, 700, stay)
