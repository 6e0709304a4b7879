"""How asking an upstream fails: nobody there, silence, no HTTP, an answer that breaks off."""

import asyncio

import pytest

from proxy.upstream.errors import Broke, Slow, Unreachable
from tests.helpers.raw_server import (
    event_loop_policy,  # noqa: F401
    in_pieces,
    raw_server,
    read_request,
    upstream,
    whole,
)
from tests.proxy.upstream.test_client import ANSWERS


async def test_a_port_without_a_server_is_unreachable():
    async with raw_server() as server:
        pass
    async with upstream() as client:
        for url in (server.url, f"http://localhost:{server.port}/", "http://no.such.invalid/"):
            with pytest.raises(Unreachable):
                await client.send("POST", url, [], b"{}")
        assert await client.answers(server.url, within_s=5) is False


@pytest.mark.parametrize("url", ["", "x", "ftp://h/", "http://", "http://h:99999/", "http://h/ x"])
async def test_a_url_that_is_not_an_address_is_unreachable(url):
    async with upstream() as client:
        with pytest.raises(Unreachable):
            await client.send("POST", url, [], b"{}")


async def test_answers_says_whether_an_address_is_served():
    async with upstream() as client:
        async with raw_server() as server:
            assert await client.answers(server.url, within_s=10) is True
        async with raw_server(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n") as server:
            assert await client.answers(server.url, within_s=10) is False
        async with raw_server(_silent) as server:
            assert await client.answers(server.url, within_s=0.05) is False


async def _silent(reader, writer):
    await reader.read()


async def test_a_silent_upstream_is_slow():
    async with raw_server(_silent) as server, upstream(read_timeout_s=0.1) as client:
        with pytest.raises(Slow):
            await client.send("POST", server.url, [], b"{}")
        await server.until_open(0)
    assert server.connections == 1  # and is not asked again


@pytest.mark.slow
async def test_the_read_timeout_counts_between_reads():
    async def answer(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.1)
            writer.write(b"x")
        await reader.read()

    async with raw_server(answer) as server, upstream(read_timeout_s=0.5) as client:
        response = await client.send("POST", server.url, [], b"{}")
        got = b""
        with pytest.raises(Slow):
            while True:
                got += await response.next_chunk()
        assert got == b"x" * 8  # longer than the limit in all
        with pytest.raises(Slow):
            await response.read()


async def test_a_tls_handshake_that_hangs_is_slow():
    async with raw_server(_silent) as server, upstream(connect_timeout_s=0.1) as client:
        with pytest.raises(Slow):
            await client.send("POST", f"https://127.0.0.1:{server.port}/", [], b"{}")
        await server.until_open(0)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nxyz",
        b"HTTP/1.1 200 OK\r\n" + b"x-many: value\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\nx-long: " + b"x" * 1_000_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
    ],
    ids=range(12),
)
async def test_bytes_that_are_not_http_break_the_answer(raw):
    async with raw_server(raw) as server, upstream() as client:
        with pytest.raises(Broke):
            await whole(client, server.url)
        await server.until_open(0)
    assert server.connections == 1


@pytest.mark.parametrize(
    "body",
    [
        b"2\r\nokxx\r\n0\r\n\r\n",
        b"-2\r\nok\r\n0\r\n\r\n",
        b"2\r\nok\r\nzz\r\n",
        b"fffffffffffffffff\r\nok\r\n",
        b"2\r\nok\r\n0\r\nx-trailer: " + b"x" * 1_000_000,
        b"2;" + b"x" * 1_000_000,
    ],
    ids=range(6),
)
async def test_malformed_chunks_break_the_answer(body):
    raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body
    async with raw_server(raw) as server, upstream() as client:
        with pytest.raises(Broke):
            await in_pieces(client, server.url)
        await server.until_open(0)


@pytest.mark.parametrize("name", ["length", "chunks", "interim answers"])
async def test_a_truncated_answer_breaks_wherever_it_is_cut(name):
    raw, _ = ANSWERS[name]
    for end in range(1, len(raw)):
        async with raw_server(raw[:end], hangs_up=True) as server, upstream() as client:
            with pytest.raises(Broke):
                await whole(client, server.url)
            with pytest.raises(Broke):
                await in_pieces(client, server.url)
        assert server.connections == 2  # something had come: none was asked twice


async def test_bytes_before_a_break_are_read_first():
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"
    async with raw_server(raw, hangs_up=True) as server, upstream() as client:
        response = await client.send("POST", server.url, [], b"{}")
        await server.until_open(0)
        assert await response.next_chunk() == b"hello"
        for _ in range(2):
            with pytest.raises(Broke):
                await response.next_chunk()
        assert response.status == 200


async def test_after_closing_nothing_is_read():
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"
    async with raw_server(raw) as server, upstream() as client:
        response = await client.send("POST", server.url, [], b"{}")
        response.close()
        response.close()
        await server.until_open(0)
        with pytest.raises(Broke):
            await response.read()
