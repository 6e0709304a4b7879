"""Connections are used again while that is safe, and never otherwise."""

import asyncio
import gc
import os
import socket

import pytest

from proxy.upstream.client import Upstream
from proxy.upstream.errors import Broke
from tests.helpers.raw_server import (  # noqa: F401
    OK,
    event_loop_policy,
    raw_server,
    read_request,
    upstream,
    whole,
)


def failing(*, first=0, after=b""):
    """Serves a connection: some good answers, then `after` and the end."""

    async def serve(reader, writer):
        for _ in range(first):
            await read_request(reader)
            writer.write(OK)
        await read_request(reader)
        writer.write(after)

    return serve


async def test_sequential_requests_share_one_connection():
    async with raw_server() as server, upstream() as client:
        for _ in range(50):
            assert await whole(client, server.url) == b"ok"
    assert server.connections == 1
    await server.until_open(0)


async def test_concurrent_requests_have_connections_of_their_own_which_are_kept():
    async with raw_server() as server, upstream() as client:
        for _ in range(3):
            many = await asyncio.gather(*[whole(client, server.url) for _ in range(100)])
            assert many == [b"ok"] * 100
        assert server.connections == 100
        for _ in range(20):
            await whole(client, server.url)
        assert server.connections == 100


async def test_idle_connections_are_limited():
    async with raw_server() as server, upstream(idle=3) as client:
        await asyncio.gather(*[whole(client, server.url) for _ in range(10)])
        await server.until_open(3)
        assert await whole(client, server.url) == b"ok"
        assert (server.connections, server.open) == (10, 3)


@pytest.mark.slow
async def test_idle_connections_expire():
    async with raw_server() as server, upstream(idle_s=0.5) as client:
        await asyncio.gather(*[whole(client, server.url) for _ in range(5)])
        while server.open > 1:  # one is in use all the time
            await whole(client, server.url)
            await asyncio.sleep(0.01)
        assert server.connections == 5
        await server.until_open(0)
        await whole(client, server.url)
        assert server.connections == 6


async def test_other_origins_have_other_connections():
    async with raw_server() as one, raw_server() as other, upstream() as client:
        for _ in range(3):
            await whole(client, one.url)
            await whole(client, other.url)
        assert (one.connections, other.connections) == (1, 1)


async def test_an_unread_answer_frees_its_connection():
    async with raw_server() as server, upstream() as client:
        kept = [await client.send("POST", server.url, [], b"{}") for _ in range(5)]
        assert server.connections == 1
        for response in kept:
            assert await response.read() == b"ok"
            response.close()
        assert server.open == 1  # a late close harms nobody
        assert await whole(client, server.url) == b"ok"
        assert server.connections == 1


async def test_a_connection_that_the_upstream_closes_is_dropped():
    async with raw_server(hangs_up=True) as server, upstream() as client:
        for n in range(3):
            assert await whole(client, server.url) == b"ok"
            await server.until_open(0)
            await asyncio.sleep(0.01)
            assert len(server.requests) == n + 1
        assert server.connections == 3


@pytest.mark.parametrize(
    "more", [b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad", b"HTTP/1.1 100 Continue"]
)
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.slow
async def test_bytes_after_an_answer_spoil_a_connection(more, later):
    """Or the next request would get somebody else's answer."""

    async def serve(reader, writer):
        await read_request(reader)
        if later:
            writer.write(OK)
            await asyncio.sleep(0.02)
            writer.write(more)
        else:
            writer.write(OK + more)
        assert await read_request(reader) is None

    async with raw_server(serve) as server, upstream() as client:
        for n in range(3):
            assert await whole(client, server.url) == b"ok"
            await server.until_open(0)
            assert server.connections == n + 1


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_request_that_was_read_and_dropped_is_not_sent_twice(method):
    """The teacher may have done the work: only the client knows whether to ask again."""
    async with raw_server(failing(first=1)) as server, upstream() as client:
        assert await whole(client, server.url) == b"ok"
        with pytest.raises(Broke):
            await whole(client, server.url, method, None)
        assert server.connections == 1


def shut(writer):
    """Closes a server's end without the event loop, which would tell the client."""
    fd = os.dup(writer.get_extra_info("socket").fileno())
    with socket.socket(fileno=fd) as plain:
        plain.shutdown(socket.SHUT_RDWR)


async def test_connections_that_were_closed_before_a_byte_was_sent_are_passed_over():
    """Also when the event loop has not read that yet."""
    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        while await read_request(reader) is not None:
            writer.write(OK)

    async with raw_server(serve) as server, upstream() as client:
        await asyncio.gather(*[whole(client, server.url) for _ in range(4)])
        for writer in writers:
            shut(writer)
        assert await whole(client, server.url) == b"ok"
        assert server.connections == 5


async def test_an_origin_that_once_closed_soon_after_an_answer_is_not_trusted_again():
    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        while await read_request(reader) is not None:
            writer.write(OK)

    async with raw_server(serve) as server, upstream() as client:
        for _ in range(3):
            assert await whole(client, server.url) == b"ok"
        writers[0].close()
        await asyncio.sleep(0.1)
        for _ in range(3):
            assert await whole(client, server.url) == b"ok"
        shut(writers[1])
        assert await whole(client, server.url) == b"ok"
        assert server.connections == 3


async def test_an_upload_is_never_sent_twice():
    async def body():
        yield b"once"

    async with raw_server(failing(first=1)) as server, upstream() as client:
        assert await whole(client, server.url) == b"ok"
        with pytest.raises(Broke):
            await client.send("POST", server.url, [], body())
        assert server.connections == 1


@pytest.mark.parametrize(
    "after", [b"H", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 103 E\r\n\r\n"]
)
async def test_a_request_whose_answer_began_is_not_sent_again(after):
    async with raw_server(failing(first=1, after=after)) as server, upstream() as client:
        assert await whole(client, server.url) == b"ok"
        with pytest.raises(Broke):
            await whole(client, server.url)
        assert server.connections == 1


@pytest.mark.slow
async def test_a_request_that_may_have_been_processed_is_not_sent_again():
    async def serve(reader, writer):
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)
        await asyncio.sleep(1.2)

    async with raw_server(serve) as server, upstream() as client:
        assert await whole(client, server.url) == b"ok"
        with pytest.raises(Broke):
            await whole(client, server.url)
        assert server.connections == 1


async def test_an_upstream_that_closes_each_connection_at_once_breaks():
    async def serve(reader, writer):
        pass

    async with raw_server(serve) as server, upstream() as client:
        found = await asyncio.gather(
            *[whole(client, server.url) for _ in range(50)], return_exceptions=True
        )
        assert {type(one) for one in found} == {Broke}
        assert server.connections == 50


@pytest.mark.parametrize("how", ["head", "body", "whole body"])
@pytest.mark.slow
async def test_a_cancelled_request_closes_its_connection(how):
    async def serve(reader, writer):
        await read_request(reader)
        if how != "head":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        assert await reader.read() == b""

    async def ask(client, server):
        response = await client.send("POST", server.url, [], b"{}")
        await (response.read() if how == "whole body" else response.next_chunk())

    async with raw_server(serve) as server, upstream() as client:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await ask(client, server)
            await server.until_open(0)
        assert server.connections == 3


async def test_requests_cancelled_at_any_moment_never_mix_up_answers():
    """Every answer belongs to its request, whatever else is called off around it."""

    async def serve(reader, writer):
        while (request := await read_request(reader)) is not None:
            said = request.rpartition(b"\r\n\r\n")[2]
            for piece in (b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(said), said):
                await asyncio.sleep(0)
                writer.write(piece)

    async def ask(client, server, said):
        assert await whole(client, server.url, body=said) == said
        return said

    async with raw_server(serve) as server, upstream() as client:
        for turn in range(300):
            wanted = [asyncio.create_task(ask(client, server, b"%d" % n)) for n in range(3)]
            unwanted = asyncio.create_task(ask(client, server, b"called off"))
            for _ in range(turn % 25):
                await asyncio.sleep(0)
            unwanted.cancel()
            assert await asyncio.gather(*wanted) == [b"0", b"1", b"2"]
            await asyncio.gather(unwanted, return_exceptions=True)
        assert server.open <= 4
    await server.until_open(0)


@pytest.mark.slow
async def test_cancelled_while_connecting_nothing_is_left_open():
    async with raw_server() as server, upstream() as client:
        for turn in range(40):
            task = asyncio.create_task(whole(client, f"http://localhost:{server.port}/"))
            for _ in range(turn % 20):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    await server.until_open(0)
    gc.collect()  # warnings of sockets that were not closed are errors


async def test_closing_lets_an_answer_under_way_come_to_its_end():
    released = asyncio.Event()

    async def serve(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nfir")
        await released.wait()
        writer.write(b"st!")
        assert await reader.read() == b""

    async with raw_server(serve) as server:
        client = Upstream(connect_timeout_s=5, read_timeout_s=5)
        await client.open()
        response = await client.send("POST", server.url, [], b"{}")
        await client.close()
        released.set()
        assert await response.read() == b"first!"
        await server.until_open(0)
