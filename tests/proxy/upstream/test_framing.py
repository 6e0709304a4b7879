"""An answer is the same however its bytes are cut on the way."""

import asyncio
import contextlib
import gzip
import itertools

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.errors import Broke
from tests.helpers.raw_server import raw_server, read_request, upstream
from tests.proxy.upstream.test_client import ANSWERS

SQUEEZED = gzip.compress(b"hello " * 50, mtime=0)
MORE = {
    **ANSWERS,
    "compressed": (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b"
        % (len(SQUEEZED), SQUEEZED),
        b"hello " * 50,
    ),
}


async def pieces_later(writer, pieces):
    """Sends each piece by itself: the other end, in the same loop, reads in between."""
    for piece in pieces:
        writer.write(piece)
        for _ in range(4):
            await asyncio.sleep(0)


async def read(response, how):
    if how == "whole":
        return await response.read()
    got = [await response.next_chunk()] if how == "first chunk, then whole" else []
    if got:
        return got[0] + await response.read()
    while chunk := await response.next_chunk():
        got.append(chunk)
    return b"".join(got)


@pytest.mark.parametrize("name", MORE)
def test_cut_in_two_anywhere(name):
    raw, body = MORE[name]

    async def answer(reader, writer):
        cut = 0
        while await read_request(reader) is not None:
            cut += 1
            await pieces_later(writer, [raw[:cut], raw[cut:]])

    async def play():
        async with raw_server(answer) as server, upstream() as client:
            for n in range(len(raw) - 1):
                response = await client.send("POST", server.url, [], b"{}")
                how = ("whole", "chunks", "first chunk, then whole")[n % 3]
                assert await read(response, how) == body, f"cut at {n + 1}"
                response.close()
            return server.connections

    assert uvloop.run(play()) == 1


@pytest.mark.parametrize("name", MORE)
def test_byte_by_byte(name):
    raw, body = MORE[name]

    async def answer(reader, writer):
        while await read_request(reader) is not None:
            await pieces_later(writer, [raw[n : n + 1] for n in range(len(raw))])

    async def play():
        async with raw_server(answer) as server, upstream() as client:
            for how in ("whole", "chunks", "first chunk, then whole"):
                response = await client.send("POST", server.url, [], b"{}")
                assert await read(response, how) == body
                response.close()
            return server.connections

    assert asyncio.run(play()) == 1


def framed(body, sizes, ends, *, squeezed):
    """An answer that holds this body, framed as told, and whether its end is the connection's."""
    head = b"HTTP/1.1 200 OK\r\nServer: x\r\n"
    if squeezed:
        body = gzip.compress(body, mtime=0)
        head += b"Content-Encoding: gzip\r\n"
    if ends == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if ends == "close":
        return head + b"\r\n" + body
    chunks = b""
    while body:
        size = sizes[len(chunks) % len(sizes)]
        chunks += b"%x\r\n%b\r\n" % (len(body[:size]), body[:size])
        body = body[size:]
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@given(
    bodies=st.lists(st.binary(max_size=3000), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=4),
    ends=st.sampled_from(["length", "chunks", "close"]),
    squeezed=st.booleans(),
    cuts=st.lists(st.integers(0, 3500), max_size=6),
    how=st.sampled_from(["whole", "chunks"]),
)
@pytest.mark.slow
def test_any_body_in_any_framing_cut_anywhere(bodies, sizes, ends, squeezed, cuts, how):
    raws = [framed(body, sizes, ends, squeezed=squeezed) for body in bodies]

    async def answer(reader, writer):
        while await read_request(reader) is not None:
            raw = raws.pop(0)
            places = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
            await pieces_later(writer, [raw[a:b] for a, b in itertools.pairwise(places) if b > a])
            if ends == "close":
                break

    async def play():
        async with raw_server(answer) as server, upstream() as client:
            for body in bodies:
                response = await client.send("POST", server.url, [], b"{}")
                assert await read(response, how) == body
                response.close()
            return server.connections

    assert uvloop.run(play()) == (len(bodies) if ends == "close" else 1)


@given(
    name=st.sampled_from(sorted(MORE)),
    start=st.integers(0, 300),
    length=st.integers(0, 300),
    instead=st.binary(max_size=20) | st.sampled_from([b"\r\n", b"0\r\n\r\n", b"HTTP/1.1 ", b": "]),
)
@pytest.mark.slow
def test_any_bytes_are_an_answer_or_break(name, start, length, instead):
    raw = MORE[name][0]
    spoilt = raw[:start] + instead + raw[start + length :]

    async def play():
        async with raw_server(spoilt, hangs_up=True) as server, upstream() as client:
            for how in ("whole", "chunks"):
                with contextlib.suppress(Broke):
                    response = await client.send("POST", server.url, [], b"{}")
                    assert 200 <= response.status <= 999
                    await read(response, how)
                    response.close()

    uvloop.run(play())
