"""Slow clients and teachers: memory stays bounded and others are served. The proxy is a process.

Bounds are bytes, with room to spare, and never times: the machine may be busy.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from tests.helpers.measured import (
    GOOD,
    PADDING,
    PATH,
    STREAMED,
    Firehose,
    Gate,
    Measured,
    post,
    proxied,
)
from tests.helpers.raw_server import raw_server
from tests.helpers.serving import wait_until

# ---- clients that read slowly --------------------------------------------------------------------

CLIENTS = 50


async def read_to_the_end(client: socket.socket) -> int:
    """The bytes of an answer's body, which has to be whole."""
    loop = asyncio.get_running_loop()
    got, tail, head = 0, b"", b""
    while not tail.endswith(b"0\r\n\r\n"):
        more = await loop.sock_recv(client, 1 << 18)
        assert more, "the answer is not whole"
        if b"\r\n\r\n" not in head:
            head += more
        got += len(more)
        tail = (tail + more)[-8:]
    assert b"x-understudy-trace" in head
    return got


@pytest.mark.slow
async def test_clients_that_do_not_read_make_the_teacher_wait(tmp_path: Path) -> None:
    hose, loop = Firehose(), asyncio.get_running_loop()
    with ExitStack() as stack:
        async with raw_server(hose) as server, proxied(server, tmp_path) as measured:
            clients = [stack.enter_context(socket.socket()) for _ in range(CLIENTS)]
            for client in clients:
                client.setblocking(False)
                await loop.sock_connect(client, ("127.0.0.1", measured.proxy.port))
                await loop.sock_sendall(client, post({**GOOD, "stream": True}))
            before = -1
            while hose.sent != before or not hose.sent:  # until it is stuck
                before = hose.sent
                await asyncio.sleep(1)
                assert hose.sent < CLIENTS * STREAMED / 2
            assert measured.grown < 60
            found = await asyncio.gather(*map(read_to_the_end, clients))
            assert min(found) > STREAMED - len(PADDING)
            assert measured.grown < 60
            traces = await asyncio.to_thread(measured.proxy.wait_for_traces, CLIENTS + 1)
            assert [t["outcome"] for t in traces if t["stream"]] == ["complete"] * CLIENTS


# ---- teachers that answer slowly -----------------------------------------------------------------

IN_FLIGHT = 500


async def ask(session: aiohttp.ClientSession, measured: Measured, size: int) -> tuple[int, bytes]:
    """A question of so many bytes: status and body of its answer."""
    body = {**GOOD, "messages": [{"role": "user", "content": "x" * size}]}
    async with session.post(f"{measured.proxy.url}{PATH}", json=body) as answer:
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) >= 1
        return answer.status, await answer.read()


def client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(200)
    )


@pytest.mark.slow
async def test_a_teacher_that_does_not_answer(tmp_path: Path) -> None:
    gate, limits = Gate(), {"limits": {"in_flight": IN_FLIGHT}}
    async with (
        raw_server(gate) as server,
        proxied(server, tmp_path, server=limits) as measured,
        client() as session,
    ):
        waiting = [asyncio.create_task(ask(session, measured, 20_000)) for _ in range(IN_FLIGHT)]
        await gate.until_asked(IN_FLIGHT)
        refused = await asyncio.gather(*(ask(session, measured, 20) for _ in range(20)))
        assert {status for status, _ in refused} == {429}
        assert b"requests at a time" in refused[0][1]
        assert measured.grown < 100  # 10 MB of requests, as they came and as they were understood
        seen = await asyncio.to_thread(measured.metrics)
        assert seen["understudy_requests_in_flight"] == IN_FLIGHT
        gate.open.set()
        assert await asyncio.gather(*waiting) == [(200, b"{}")] * IN_FLIGHT
        assert gate.asked == 1 + IN_FLIGHT
        assert (await ask(session, measured, 20))[0] == 200
        await asyncio.to_thread(measured.proxy.wait_for_traces, 2 + IN_FLIGHT)


@pytest.mark.slow
async def test_requests_under_way_take_so_many_megabytes(tmp_path: Path) -> None:
    gate, limits = Gate(), {"limits": {"in_flight_mb": 8}}
    async with (
        raw_server(gate) as server,
        proxied(server, tmp_path, server=limits) as measured,
        client() as session,
    ):
        waiting = [asyncio.create_task(ask(session, measured, 900_000)) for _ in range(30)]
        async with asyncio.timeout(100):
            while sum(task.done() for task in waiting) < 21:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await gate.until_asked(9)
        assert measured.grown < 80
        gate.open.set()
        answers = Counter([status for status, _ in await asyncio.gather(*waiting)])
        assert answers == {200: 9, 429: 21}


# ---- clients that send slowly --------------------------------------------------------------------


@pytest.mark.slow
async def test_clients_that_send_a_byte_at_a_time(tmp_path: Path) -> None:
    """A hundred that never come to the end of their head, and a hundred in their body."""
    loop = asyncio.get_running_loop()
    whole = post(GOOD)
    body_at = whole.index(b"\r\n\r\n") + 4
    stop = asyncio.Event()

    async def drip(lazy: socket.socket, begun: bytes, rest: bytes) -> None:
        await loop.sock_sendall(lazy, begun)
        for byte in rest:
            if stop.is_set():
                return
            await loop.sock_sendall(lazy, bytes([byte]))
            await asyncio.sleep(0.1)

    gate = Gate()
    gate.open.set()
    async with raw_server(gate) as server, proxied(server, tmp_path) as measured:
        with ExitStack() as stack:
            lazy = [stack.enter_context(socket.socket()) for _ in range(200)]
            for one in lazy:
                one.setblocking(False)
                await loop.sock_connect(one, ("127.0.0.1", measured.proxy.port))
            endless = b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 1000
            in_body = whole[:body_at], b" " * (len(whole) - body_at - 1)
            dripping = [
                asyncio.create_task(drip(one, *(endless if n % 2 else in_body)))
                for n, one in enumerate(lazy)
            ]
            async with client() as session:
                for _ in range(10):
                    found = await asyncio.gather(*(ask(session, measured, 1000) for _ in range(10)))
                    assert found == [(200, b"{}")] * 10
            assert measured.grown < 40
            seen = await asyncio.to_thread(measured.metrics)
            assert seen["understudy_requests_in_flight"] == 100
            stop.set()
            await asyncio.gather(*dripping)
        await asyncio.to_thread(wait_until, lambda: none_in_flight(measured))
        await asyncio.to_thread(measured.proxy.wait_for_traces, 101)


def none_in_flight(measured: Measured) -> bool:
    return measured.metrics()["understudy_requests_in_flight"] == 0
