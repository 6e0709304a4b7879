"""Slow readers and slow upstreams: buffers stay bounded in both directions."""

import asyncio

import pytest

from proxy.upstream.errors import Broke, Slow
from tests.helpers.raw_server import event_loop_policy, raw_server, read_request, upstream, whole  # noqa: F401

MB = 1024 * 1024
# the kernel's buffers of a loopback connection, both ends together
KERNEL = 16 * MB
LONG = 64 * MB


async def settled(count):
    """A count, once it does not rise any more."""
    before = -1
    while (now := count()) != before:
        before = now
        await asyncio.sleep(0.2)
    return now


def held(response):
    """The bytes of a body that wait in this process."""
    return sum(map(len, response.chunks))


# ---- answers


def pouring(sent, head=b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LONG):
    """Serves a long body as fast as it is taken."""

    async def serve(reader, writer):
        while await read_request(reader) is not None:
            writer.write(head)
            for _ in range(LONG // 65536):
                writer.write(b"x" * 65536)
                await writer.drain()
                sent.append(65536)

    return serve


@pytest.mark.slow
async def test_a_slow_reader_makes_the_upstream_wait():
    sent = []
    async with raw_server(pouring(sent)) as server, upstream(read_timeout_s=1) as client:
        response = await client.send("POST", server.url, [], b"{}")
        poured = await settled(lambda: sum(sent))
        await asyncio.sleep(1)  # longer than the read timeout
        assert sum(sent) == poured
        assert poured < KERNEL
        assert held(response) < MB
        got = 0
        for _ in range(40):
            got += len(await response.next_chunk())
            assert held(response) < MB
            await asyncio.sleep(0.001)
        while chunk := await response.next_chunk():
            got += len(chunk)
        assert got == LONG
        assert sum(sent) == LONG
        # and the connection is as good as new
        assert len(await whole(client, server.url)) == LONG
        assert server.connections == 1


@pytest.mark.slow
async def test_a_slow_reader_of_a_body_that_ends_with_its_connection():
    async def serve(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2 * MB)

    async with raw_server(serve) as server, upstream() as client:
        response = await client.send("POST", server.url, [], b"{}")
        await asyncio.sleep(0.3)
        got = 0
        while chunk := await response.next_chunk():
            got += len(chunk)
            await asyncio.sleep(0.001)
        assert got == 2 * MB


@pytest.mark.slow
async def test_reading_everything_ends_a_pause():
    sent = []
    async with raw_server(pouring(sent)) as server, upstream() as client:
        response = await client.send("POST", server.url, [], b"{}")
        await settled(lambda: sum(sent))
        first = await response.next_chunk()
        await settled(lambda: sum(sent))
        assert len(first) + len(await response.read()) == LONG


@pytest.mark.slow
async def test_a_slow_reader_that_leaves_closes_the_connection():
    sent = []
    async with raw_server(pouring(sent)) as server, upstream() as client:
        response = await client.send("POST", server.url, [], b"{}")
        await settled(lambda: sum(sent))
        response.close()
        await server.until_open(0)
        assert held(response) < MB


@pytest.mark.slow
async def test_an_upstream_that_falls_silent_after_a_pause_is_slow():
    async def serve(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LONG + b"x" * MB)
        await reader.read()

    async with raw_server(serve) as server, upstream(read_timeout_s=0.3) as client:
        response = await client.send("POST", server.url, [], b"{}")
        await asyncio.sleep(1)  # it is the reader that is slow
        got = 0
        with pytest.raises(Slow):
            while True:
                got += len(await response.next_chunk())
        assert got == MB


# ---- requests


def endless(piece, made):
    async def body():
        while True:
            made.append(len(piece))
            yield piece

    return body()


async def test_uploads_go_in_chunks():
    async def body():
        for piece in (b"one", b"", b"two" * 5000):
            yield piece

    async with raw_server() as server, upstream() as client:
        for _ in range(2):
            response = await client.send("POST", server.url, [(b"a", b"b")], body())
            assert await response.read() == b"ok"
        assert server.connections == 1
    head, _, sent = server.requests[0].partition(b"\r\n\r\n")
    assert head.endswith(b"\r\na: b\r\ntransfer-encoding: chunked")
    assert sent == b"3\r\none\r\n3a98\r\n" + b"two" * 5000 + b"\r\n0\r\n\r\n"


async def test_uploads_keep_the_length_that_is_stated():
    async def body():
        yield b"one"
        yield b"two"

    async with raw_server() as server, upstream() as client:
        stated = [(b"content-length", b"6")]
        assert await (await client.send("POST", server.url, stated, body())).read() == b"ok"
        assert server.requests[0].endswith(b"\r\ncontent-length: 6\r\n\r\nonetwo")
        for wrong in (b"5", b"7"):
            with pytest.raises(ValueError, match="content-length"):
                await client.send("POST", server.url, [(b"content-length", wrong)], body())
            await server.until_open(0)


@pytest.mark.slow
async def test_an_upstream_that_does_not_read_makes_the_upload_wait():
    made = []

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(60)

    async with raw_server(serve) as server, upstream(read_timeout_s=1.5) as client:
        task = asyncio.create_task(client.send("POST", server.url, [], endless(b"x" * 65536, made)))
        assert await settled(lambda: sum(made)) < KERNEL
        with pytest.raises(Slow):
            await task


@pytest.mark.slow
async def test_an_upload_may_take_its_time():
    async def body():
        for _ in range(4):
            await asyncio.sleep(0.2)  # in all longer than the read timeout, and each nearly
            yield b"x"
        await asyncio.sleep(0.6)

    async with raw_server() as server, upstream(read_timeout_s=0.3) as client:
        assert await (await client.send("POST", server.url, [], body())).read() == b"ok"


@pytest.mark.slow
async def test_a_large_body_may_take_its_time_as_long_as_it_moves():
    """And so may the answer to it, once it is there."""

    async def serve(reader, writer):
        left = LONG // 2
        await reader.readuntil(b"\r\n\r\n")
        while left:
            left -= len(await reader.read(left))
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)  # in all longer than the read timeout
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with raw_server(serve) as server, upstream(read_timeout_s=2) as client:
        assert await whole(client, server.url, body=b"x" * (LONG // 2)) == b"ok"


@pytest.mark.parametrize("sending", ["upload", "bytes"])
async def test_an_answer_before_the_end_of_the_request(sending):
    """It is read, and the connection is not used again: the rest was never sent."""
    made = []

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nlarge")
        await reader.read(1)
        await asyncio.sleep(60)

    body = endless(b"x" * 65536, made) if sending == "upload" else b"x" * LONG
    async with raw_server(serve) as server, upstream() as client:
        response = await client.send("POST", server.url, [], body)
        assert (response.status, await response.read()) == (413, b"large")
        assert sum(made) < KERNEL
        other = await client.send("POST", server.url, [], b"{}")
        assert server.connections == 2
        other.close()


@pytest.mark.slow
async def test_an_answer_that_goes_on_after_an_upload_was_given_up():
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\n\r\nla")
        await asyncio.sleep(0.3)
        writer.write(b"rge")
        await reader.read()

    async def body():
        yield b"x"
        await asyncio.sleep(0.1)
        yield b"y"

    async with raw_server(serve) as server, upstream() as client:
        response = await client.send("POST", server.url, [], body())
        assert await response.read() == b"large"
        await server.until_open(0)


async def test_an_upload_that_the_upstream_hangs_up_on_breaks():
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.read(100)

    made = []
    async with raw_server(serve) as server, upstream() as client:
        with pytest.raises(Broke):
            await client.send("POST", server.url, [], endless(b"x" * 65536, made))
        assert server.connections == 1


async def test_an_error_in_the_uploads_body_closes_the_connection():
    closed = []

    async def body():
        try:
            yield b"x"
            raise LookupError("gone")
        finally:
            closed.append(True)

    async with raw_server() as server, upstream() as client:
        with pytest.raises(LookupError):
            await client.send("POST", server.url, [], body())
        await server.until_open(0)
    assert closed == [True]


async def test_a_cancelled_upload_closes_the_connection():
    closed = []

    async def body():
        try:
            yield b"x"
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    async with raw_server() as server, upstream() as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.send("POST", server.url, [], body())
        await server.until_open(0)
    assert closed == [True]
