"""Upstreams behind TLS."""

import asyncio
import os
import socket
import ssl

import pytest
import trustme

from proxy.upstream.errors import Broke, Unreachable
from tests.helpers.raw_server import (  # noqa: F401
    OK,
    event_loop_policy,
    in_pieces,
    raw_server,
    read_request,
    upstream,
    whole,
)

MB = 1024 * 1024


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority, tmp_path, monkeypatch):
    """A server's side of TLS, which clients of this test trust."""
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    return serving(authority, "127.0.0.1", "localhost", "teacher.example")


def serving(authority, *names):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def test_tls_and_its_connections_are_used_again(tls):
    named = []
    tls.sni_callback = lambda _, name, __: named.append(name)
    async with raw_server(tls=tls) as server, upstream() as client:
        url = f"https://localhost:{server.port}/"
        for _ in range(3):
            assert await whole(client, url) == b"ok"
            assert await whole(client, server.url) == b"ok"  # by its address
        assert server.connections == 2
    assert named == ["localhost", None]  # an address has no server name (RFC 6066)


async def test_only_http_1_1_is_offered_in_tls(tls):
    spoken = []

    async def serve(reader, writer):
        spoken.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await read_request(reader)
        writer.write(OK)

    async with raw_server(serve, tls=tls) as server, upstream() as client:
        assert await whole(client, server.url) == b"ok"
    assert spoken == ["http/1.1"]


async def test_an_untrusted_server_is_sent_nothing(tls, authority):
    wrong_name = serving(authority, "other.example")
    stranger = serving(trustme.CA(), "127.0.0.1")
    for context in (wrong_name, stranger):
        async with raw_server(tls=context) as server, upstream() as client:
            with pytest.raises(Unreachable):
                await whole(client, server.url)
            assert server.requests == []


async def test_a_server_without_tls_cannot_be_reached_with_it(tls):
    async def serve(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_server(serve) as server, upstream() as client:
        with pytest.raises(Unreachable):
            await whole(client, server.url.replace("http:", "https:"))


@pytest.mark.parametrize("farewell", [True, False])
async def test_bodies_that_end_with_a_tls_connection(tls, farewell):
    """Many servers close TCP without TLS's close_notify."""

    async def serve(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        await writer.drain()
        if not farewell:
            hang_up_at_once(writer)

    async with raw_server(serve, tls=tls) as server, upstream() as client:
        assert await whole(client, server.url) == b"until the end"
        assert await in_pieces(client, server.url) == b"until the end"


@pytest.mark.parametrize("farewell", [True, False])
@pytest.mark.slow
async def test_a_slow_reader_of_a_body_that_ends_with_a_tls_connection(tls, farewell):
    async def serve(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * MB)
        await writer.drain()
        if not farewell:
            hang_up_at_once(writer)

    async with raw_server(serve, tls=tls) as server, upstream() as client:
        response = await client.send("POST", server.url, [], b"{}")
        await asyncio.sleep(0.3)
        got = 0
        while chunk := await response.next_chunk():
            got += len(chunk)
            await asyncio.sleep(0.01)
        assert got == MB


@pytest.mark.parametrize("farewell", [True, False])
async def test_an_answer_that_is_cut_off_breaks_in_tls_too(tls, farewell):
    async def serve(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello")
        await writer.drain()
        if not farewell:
            hang_up_at_once(writer)

    async with raw_server(serve, tls=tls) as server, upstream() as client:
        with pytest.raises(Broke):
            await whole(client, server.url)


async def test_stale_tls_connections(tls):
    async with raw_server(tls=tls, hangs_up=True) as server, upstream() as client:
        for n in range(4):
            assert await whole(client, server.url) == b"ok"
            assert server.connections == n + 1


@pytest.mark.slow
async def test_a_slow_reader_makes_a_tls_upstream_wait(tls):
    sent = []

    async def serve(reader, writer):
        while await read_request(reader) is not None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (40 * MB))
            for _ in range(40 * 16):
                writer.write(b"x" * 65536)
                await writer.drain()
                sent.append(65536)

    async with raw_server(serve, tls=tls) as server, upstream() as client:
        response = await client.send("POST", server.url, [], b"{}")
        await asyncio.sleep(1)
        assert sum(sent) < 20 * MB
        assert sum(map(len, response.chunks)) < 2 * MB
        assert len(await response.read()) == 40 * MB
        assert len(await in_pieces(client, server.url)) == 40 * MB
        assert server.connections == 1


async def test_large_requests_over_tls(tls):
    async def body():
        for _ in range(100):
            yield b"x" * 65536

    async with raw_server(tls=tls) as server, upstream() as client:
        assert await whole(client, server.url, body=b"y" * (8 * MB)) == b"ok"
        stated = [(b"content-length", b"6553600")]
        assert await (await client.send("POST", server.url, stated, body())).read() == b"ok"
        assert server.connections == 1
    assert [len(request) > 6 * MB for request in server.requests] == [True, True]


def hang_up_at_once(writer):
    """Ends TCP under TLS, without a word in it."""
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as plain:
        plain.shutdown(socket.SHUT_WR)
