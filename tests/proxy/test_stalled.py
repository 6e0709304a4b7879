"""Clients that stop, in what they send or in what they read, through the whole proxy."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import httpx
import pytest

from proxy.http import protocol
from proxy.http.protocol import Protocol
from tests.helpers.measured import BEGIN, END, GOOD, MB, PADDING, PATH, post
from tests.helpers.raw_http import Raw
from tests.helpers.raw_server import raw_server
from tests.helpers.serving import ProxyThread, in_its_loop, settings, wait_until
from tests.helpers.teacher_server import LoopbackServer, events


def only(proxy: ProxyThread) -> Protocol:
    """The one connection that is in the middle of something."""
    [connection] = wait_until(lambda: [c for c in proxy.connections if c.answering is not None])
    return connection


def later(connection: Protocol, seconds: float) -> None:
    """What the proxy would do so much later."""
    in_its_loop(connection, lambda: connection.look_after(connection.loop.time() + seconds))


def in_flight(proxy: ProxyThread) -> float:
    page = httpx.get(f"{proxy.url}/metrics").text
    [line] = [one for one in page.splitlines() if one.startswith("understudy_requests_in_flight{")]
    return float(line.rsplit(" ", 1)[1])


def test_a_client_that_never_reads_is_closed_in_the_end(
    proxy: ProxyThread, teacher: LoopbackServer
) -> None:
    teacher.answer = lambda _: events(BEGIN, *[PADDING] * 400, END)
    with Raw(proxy.port) as client:
        client.send(post({**GOOD, "stream": True}))
        connection = only(proxy)
        wait_until(lambda: connection._stalled_at is not None)
        later(connection, protocol.STALL_S / 2)
        assert only(proxy) is connection and not proxy.traces()
        later(connection, protocol.STALL_S + 5)
        [trace] = proxy.wait_for_traces(1)
        assert (trace["outcome"], trace["status_code"]) == ("client_gone", 200)
        assert "good" in trace["output_messages"]
        assert in_flight(proxy) == 0
        assert not client.read_all().endswith(b"0\r\n\r\n")  # nobody takes it for whole


@pytest.mark.parametrize("path", [PATH, "/v1/files"])
def test_a_client_that_stops_in_its_upload_is_closed_in_the_end(
    path: str, proxy: ProxyThread, teacher: LoopbackServer
) -> None:
    with Raw(proxy.port) as client:
        client.send(post(GOOD, path)[:-1])
        connection = only(proxy)
        wait_until(lambda: in_flight(proxy) == 1)
        later(connection, protocol.HEAD_TIMEOUT_S / 2)
        assert only(proxy) is connection
        later(connection, protocol.HEAD_TIMEOUT_S + 5)
        assert client.read_all().startswith(b"HTTP/1.1 408 ")
        wait_until(lambda: in_flight(proxy) == 0)
    assert not proxy.traces() and not teacher.requests


SIZE = 64 * MB  # more than all buffers on the way take


@pytest.mark.slow
async def test_an_upload_to_a_teacher_that_does_not_read_is_not_closed(tmp_path: Path) -> None:
    """An upload of which the proxy takes no more before the teacher does."""
    read_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await read_on.wait()
        await reader.readexactly(SIZE)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    def upload(port: int, sent: threading.Event) -> bytes:
        head = b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % SIZE
        with Raw(port) as client:
            client.socket.settimeout(60)
            client.send(head)
            for _ in range(SIZE // MB):
                client.send(b"x" * MB)
            sent.set()
            return client.read_answer()[2]

    sent = threading.Event()
    async with raw_server(slow) as server:
        with ProxyThread(settings(f"{server.url}v1", tmp_path)) as proxy:
            uploading = asyncio.create_task(asyncio.to_thread(upload, proxy.port, sent))
            connection = await asyncio.to_thread(only, proxy)
            await asyncio.to_thread(wait_until, lambda: connection.flow.read_paused)
            await asyncio.sleep(0.5)
            assert connection.flow.read_paused and not sent.is_set()
            await asyncio.to_thread(later, connection, 200)
            read_on.set()
            assert await uploading == b"ok"
