"""Upstreams behind the forward proxy that the environment names."""

import asyncio
import contextlib
import gzip
import subprocess
import sys

import pytest

from proxy.upstream.errors import Broke, Slow, Unreachable
from tests.helpers.paths import ROOT
from tests.helpers.raw_server import event_loop_policy, raw_server, read_request, upstream, whole  # noqa: F401
from tests.proxy.upstream.test_tls import authority, tls  # noqa: F401


@contextlib.asynccontextmanager
async def forward_proxy(monkeypatch, server, *, refuses=b""):
    """A forward proxy to the server, whatever host is asked for; what it was told, in order."""
    told = []

    async def pipe(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        told.append(head)
        if refuses:
            writer.write(refuses)
            return
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        if head.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            back.write(head)
        try:
            await asyncio.gather(pipe(reader, back), pipe(there, writer))
        finally:
            back.close()

    async with raw_server(serve) as forwarding:
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        address = f"http://me:secret@127.0.0.1:{forwarding.port}"
        monkeypatch.setenv("HTTP_PROXY", address)
        monkeypatch.setenv("https_proxy", address)
        yield told


HEADERS = [(b"content-type", b"a/b"), (b"authorization", b"Bearer \xc3\xa9")]


async def test_https_goes_through_a_tunnel(tls, monkeypatch):  # noqa: F811
    squeezed = gzip.compress(b"through", mtime=0)
    raw = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
    async with (
        raw_server(raw % (len(squeezed), squeezed), tls=tls) as server,
        forward_proxy(monkeypatch, server) as told,
        upstream() as client,
    ):
        for _ in range(3):
            response = await client.send("POST", "https://teacher.example/v1", HEADERS, b"{}")
            assert await response.next_chunk() == b"through"
            assert await response.read() == b""
            response.close()
        assert (response.status, response.headers) == (200, [(b"x-a", b"1")])
        assert server.connections == 1
    [head] = told
    assert head.startswith(b"CONNECT teacher.example:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in head
    sent = server.requests[0].lower()
    assert sent.startswith(b"post /v1 http/1.1\r\nhost: teacher.example\r\n")
    assert b"authorization: bearer \xc3\xa9\r\n" in sent
    assert b"user-agent" not in sent
    assert b"secret" not in sent


async def test_http_is_asked_of_the_proxy_itself(monkeypatch):
    async def body():
        yield b"one"
        yield b"two"

    async with (
        raw_server() as server,
        forward_proxy(monkeypatch, server) as told,
        upstream() as client,
    ):
        assert await whole(client, "http://teacher.example/v1/%2Fx?y") == b"ok"
        response = await client.send("POST", "http://teacher.example/v1", [], body())
        assert await response.read() == b"ok"
    assert told[0].startswith(b"POST http://teacher.example/v1/%2Fx?y HTTP/1.1\r\n")
    assert b"onetwo" in server.requests[1].replace(b"\r\n3\r\n", b"")


async def test_loopback_addresses_are_asked_directly(monkeypatch):
    async with (
        raw_server() as server,
        forward_proxy(monkeypatch, server) as told,
        upstream() as client,
    ):
        assert await whole(client, server.url) == b"ok"
        assert await whole(client, f"http://localhost:{server.port}/") == b"ok"
    assert told == []


async def test_a_proxy_that_refuses(monkeypatch):
    async with raw_server() as server:
        refuses = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
        async with (
            forward_proxy(monkeypatch, server, refuses=refuses) as told,
            upstream() as client,
        ):
            with pytest.raises(Unreachable):
                await whole(client, "https://teacher.example/v1")
            assert len(told) == 1
        async with upstream() as client:
            with pytest.raises(Unreachable):  # it is gone
                await whole(client, "https://teacher.example/v1")
    assert server.requests == []


async def test_a_proxy_that_is_no_http_proxy(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    async with upstream() as client:
        with pytest.raises(Unreachable):
            await whole(client, "https://teacher.example/v1")


@pytest.mark.slow
async def test_failures_behind_a_proxy(monkeypatch):
    async def serve(reader, writer):
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello")
        if len(turns) > 1:
            await asyncio.sleep(5)
        turns.append(1)

    turns = [1]
    async with (
        raw_server(serve) as server,
        forward_proxy(monkeypatch, server),
        upstream(read_timeout_s=1) as client,
    ):
        with pytest.raises(Broke):
            await whole(client, "http://teacher.example/v1")
        with pytest.raises(Slow):
            await whole(client, "http://teacher.example/v1")


@pytest.mark.slow
def test_aiohttp_is_loaded_for_a_forward_proxy_only():
    code = (
        "import asyncio, sys\n"
        "from tests.helpers.raw_server import raw_server, upstream, whole\n"
        "async def main():\n"
        "    async with raw_server() as server, upstream() as client:\n"
        "        await whole(client, f'http://localhost:{server.port}/')\n"
        "asyncio.run(main())\n"
        "print('aiohttp' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout == "False\n"
