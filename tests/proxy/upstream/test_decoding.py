"""Compressed answers are read as what they hold, a bounded step at a time."""

import contextlib
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.coding import CodingError, Inflate
from proxy.upstream.errors import Broke
from tests.helpers.raw_server import in_pieces, raw_server, upstream, whole

TEXT = b"".join(b"line %d of what was said\n" % n for n in range(5000))


def bare(data):
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()


SQUEEZES = {"gzip": gzip.compress, "zlib": zlib.compress, "bare deflate": bare}


def through(decoder, data, size):
    out = []
    for start in range(0, len(data), size):
        decoder.feed(data[start : start + size])
        while piece := decoder.step():
            out.append(piece)
    return out


@given(
    data=st.binary(max_size=5000),
    repeats=st.integers(1, 200),
    size=st.integers(1, 3000),
    how=st.sampled_from(sorted(SQUEEZES)),
)
def test_compressed_bodies_decode_to_the_original(data, repeats, size, how):
    decoder = Inflate(gzip=how == "gzip")
    out = through(decoder, SQUEEZES[how](data * repeats), size)
    assert b"".join(out) == data * repeats
    assert all(len(piece) <= 65536 for piece in out)
    assert decoder.whole


@given(st.binary(max_size=2000), st.integers(1, 100), st.booleans())
def test_a_body_in_another_encoding_is_an_error(data, size, is_gzip):
    decoder = Inflate(gzip=is_gzip)
    with contextlib.suppress(CodingError):  # and nothing else
        through(decoder, data, size)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_several_gzip_members_and_padding_decode(size):
    data = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two") + b"\0" * 20
    decoder = Inflate(gzip=True)
    assert b"".join(through(decoder, data, size)) == b"one two"
    assert decoder.whole


@pytest.mark.parametrize("how", SQUEEZES)
def test_a_body_that_is_cut_is_not_whole(how):
    data = SQUEEZES[how](TEXT)
    decoder = Inflate(gzip=how == "gzip")
    through(decoder, data[:-1], 1000)
    assert not decoder.whole


@pytest.mark.slow
def test_a_compression_bomb_is_decoded_in_bounded_steps():
    bomb = gzip.compress(b"\0" * 200_000_000, 9)
    decoder = Inflate(gzip=True)
    decoder.feed(bomb)
    tracemalloc.start()
    try:
        size = 0
        while piece := decoder.step():
            size += len(piece)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == 200_000_000
    assert most < 4_000_000


# ---- as answers


def answer(coding, body):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Encoding: %b\r\n" % coding
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize(
    ("coding", "squeeze"),
    [
        (b"gzip", gzip.compress),
        (b"X-GZip ", gzip.compress),
        (b"deflate", zlib.compress),
        (b"deflate", bare),
    ],
)
async def test_a_compressed_answer(coding, squeeze):
    async with raw_server(answer(coding, squeeze(TEXT))) as server, upstream() as client:
        assert await whole(client, server.url) == TEXT
        assert await in_pieces(client, server.url) == TEXT
        response = await client.send("POST", server.url, [], b"{}")
        # the length and the encoding were those of the compressed body
        assert response.headers == [(b"content-type", b"a/b")]
        assert (response.status, response.content_type) == (200, "a/b")
    assert server.connections == 1


async def test_without_decode_a_compressed_answer_stays_compressed():
    raw = gzip.compress(TEXT)
    async with raw_server(answer(b"gzip", raw)) as server, upstream() as client:
        response = await client.send("POST", server.url, [], b"{}", decode=False)
        assert await response.read() == raw
        assert (b"content-encoding", b"gzip") in response.headers


@pytest.mark.parametrize("coding", [b"compress", b"aws-chunked", b"gzip, gzip", b"identity", b""])
async def test_other_encodings_are_left_alone(coding):
    async with raw_server(answer(coding, b"\x01\x02")) as server, upstream() as client:
        response = await client.send("POST", server.url, [], b"{}")
        assert await response.read() == b"\x01\x02"
        assert (b"content-encoding", coding) in response.headers


CUT_SHORT = gzip.compress(TEXT, mtime=0)[:-3]


@pytest.mark.parametrize("body", [CUT_SHORT, b"not squeezed", b"\x1f\x8b\x08"])
async def test_a_whole_body_that_contradicts_its_encoding_stays_as_it_is(body):
    async with raw_server(answer(b"gzip", body)) as server, upstream() as client:
        response = await client.send("POST", server.url, [], b"{}")
        assert await response.read() == body
        assert (b"content-encoding", b"gzip") in response.headers


async def test_a_body_in_pieces_ends_where_its_decoding_does():
    async with raw_server(answer(b"gzip", CUT_SHORT)) as server, upstream() as client:
        assert TEXT.startswith(await in_pieces(client, server.url))
    async with raw_server(answer(b"gzip", b"not squeezed")) as server, upstream() as client:
        with pytest.raises(Broke):
            await in_pieces(client, server.url)


async def test_an_empty_body_is_empty():
    async with raw_server(answer(b"gzip", b"")) as server, upstream() as client:
        assert await whole(client, server.url) == b""
