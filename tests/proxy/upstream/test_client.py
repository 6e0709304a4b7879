"""The upstream client: the bytes of its requests, and how it reads answers."""

import asyncio
import socket

import pytest

from tests.helpers.raw_server import event_loop_policy, in_pieces, raw_server, upstream, whole  # noqa: F401

# ---- requests


async def test_a_request_has_the_given_headers_and_no_others():
    async with raw_server() as server, upstream() as client:
        headers = [(b"content-type", b"application/json"), (b"x-note", "gr\xfc\xdf".encode())]
        response = await client.send("POST", f"{server.url}v1/x%2Fy?a=b%20c&d", headers, b'{"a":1}')
    assert (response.status, response.headers) == (200, [(b"content-length", b"2")])
    assert server.requests == [
        b"POST /v1/x%2Fy?a=b%20c&d HTTP/1.1\r\nhost: 127.0.0.1:" + str(server.port).encode() +
        b"\r\ncontent-type: application/json\r\nx-note: gr\xc3\xbc\xc3\x9f\r\n"
        b'content-length: 7\r\n\r\n{"a":1}'
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("GET", None, None),
        ("HEAD", None, None),
        ("OPTIONS", None, None),
        ("POST", None, b"0"),
        ("DELETE", None, b"0"),
        ("POST", b"", b"0"),
        ("PUT", b"x" * 70_000, b"70000"),
        ("POST", b"x" * 3_000_000, b"3000000"),
    ],
)
async def test_a_request_states_its_bodys_length(method, body, length):
    async with raw_server() as server, upstream() as client:
        response = await client.send(method, server.url, [], body)
        await response.read()
    head, _, sent = server.requests[0].partition(b"\r\n\r\n")
    assert sent == (body or b"")
    assert (b"content-length" in head) == (length is not None)
    assert length is None or head.endswith(b"\r\ncontent-length: " + length)


@pytest.mark.parametrize("value", [b"a\r\nx: 1", b"a\nx: 1", b"a\rb", b"a\0b", b"\r\n", b"\n"])
@pytest.mark.parametrize("where", [0, 1])
async def test_a_header_cannot_begin_another(value, where):
    pair = (value, b"v") if where == 0 else (b"x-n", value)
    async with raw_server() as server, upstream() as client:
        with pytest.raises(ValueError, match="line end"):
            await client.send("POST", server.url, [(b"a", b"b"), pair], b"{}")
    assert server.connections == 0


async def test_a_password_in_the_url_wins():
    async with raw_server() as server, upstream() as client:
        url = server.url.replace("://", "://me:p%40ss@")
        response = await client.send("GET", url, [(b"authorization", b"Bearer x")], None)
        assert await response.read() == b"ok"
    assert server.requests[0].count(b"authorization") == 1
    assert b"\r\nauthorization: Basic bWU6cEBzcw==\r\n" in server.requests[0]


async def test_the_host_header_of_names_and_addresses():
    async with upstream() as client:
        async with raw_server(host="::1") as server:
            assert await whole(client, f"http://[::1]:{server.port}/") == b"ok"
            assert f"\r\nhost: [::1]:{server.port}\r\n".encode() in server.requests[0]
        async with raw_server() as server:
            assert await whole(client, f"http://localhost:{server.port}/") == b"ok"


async def test_all_addresses_of_a_name_are_tried(monkeypatch):
    """The event loop's resolver is the only thing here that is not real."""
    async with raw_server() as gone:
        pass
    async with raw_server() as server, upstream() as client:
        asked = []

        async def addresses(host, port, **_):
            if host == "teacher.example":
                asked.append(port)
            there = (
                [(host, port)]
                if host != "teacher.example"
                else [("192.0.2.1", 9), ("127.0.0.1", gone.port), ("127.0.0.1", server.port)]
            )
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in there]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", addresses, raising=False)
        url = "http://teacher.example/v1"
        found = await asyncio.gather(*[whole(client, url) for _ in range(3)])
        assert found == [b"ok"] * 3
    assert set(asked) == {80}
    assert b"\r\nhost: teacher.example\r\n" in server.requests[0]


# ---- answers

ANSWERS = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "no body at all": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"hello",
    ),
    "chunk extensions, trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n"
        b'5;name="v";b\r\nhello\r\n0;last\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n',
        b"hello",
    ),
    "sizes with spaces": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5  \r\nhello\r\n0\r\n\r\n",
        b"hello",
    ),
    "upper-case sizes with zeros": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: CHUNKED\r\n\r\n000A\r\n0123456789\r\n00\r\n\r\n",
        b"0123456789",
    ),
    "bare line feeds": (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", b"ok"),
    "empty header, folded spaces": (
        b"HTTP/1.1 200\r\nX-Empty:\r\nX-Next:   1  \r\ncontent-length: 2\r\n\r\nok",
        b"ok",
    ),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"ok",
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "304 with the length it would have": (
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        b"",
    ),
    "an error": (b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\noh", b"oh"),
    "a redirect": (b"HTTP/1.1 302 Found\r\nlocation: /y\r\ncontent-length: 2\r\n\r\nno", b"no"),
    "1.0 kept alive": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
        b"ok",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_are_read_and_their_connection_is_used_again(name):
    raw, body = ANSWERS[name]
    async with raw_server(raw) as server, upstream() as client:
        for _ in range(2):
            assert await whole(client, server.url) == body
            assert await in_pieces(client, server.url) == body
    assert (server.connections, len(server.requests)) == (1, 4)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: something\r\n\r\n",
    ],
)
@pytest.mark.parametrize("body", [b"", b"until the end"])
async def test_bodies_that_end_with_the_connection(head, body):
    async with raw_server(head + body, hangs_up=True) as server, upstream() as client:
        assert await whole(client, server.url) == body
        assert await in_pieces(client, server.url) == body
    assert server.connections == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nokand more",
    ],
)
async def test_a_connection_that_is_announced_to_close_is_closed(raw):
    async with raw_server(raw) as server, upstream() as client:
        assert await whole(client, server.url) == b"ok"
        await server.until_open(0)
        assert await whole(client, server.url) == b"ok"
    assert server.connections == 2


async def test_head_has_no_body_whatever_it_announces():
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    async with raw_server(raw) as server, upstream() as client:
        for _ in range(2):
            response = await client.send("HEAD", server.url, [], None)
            assert response.headers == [(b"content-length", b"5")]
            assert await response.read() == b""


async def test_headers_come_in_order_with_lower_case_names():
    raw = (
        b"HTTP/1.1 201 Created\r\nContent-Type: Text/HTML; Charset=X\r\nX-Empty:\r\nX-A: 1\r\n"
        b"x-a:  2 \r\nX-Raw: \xff\r\nContent-Length: 0\r\n\r\n"
    )
    async with raw_server(raw) as server, upstream() as client:
        response = await client.send("GET", server.url, [], None)
    assert response.status == 201
    assert response.content_type == "text/html; charset=x"
    assert response.headers == [
        (b"content-type", b"Text/HTML; Charset=X"),
        (b"x-empty", b""),
        (b"x-a", b"1"),
        (b"x-a", b"2 "),
        (b"x-raw", b"\xff"),
        (b"content-length", b"0"),
    ]


async def test_trailers_and_hints_are_no_headers_of_any_answer():
    raw = (
        b"HTTP/1.1 103 Early Hints\r\nx-hint: 1\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-trailer: 1\r\n\r\n"
    )
    async with raw_server(raw) as server, upstream() as client:
        for _ in range(3):
            response = await client.send("GET", server.url, [], None)
            assert await response.read() == b""
            assert response.headers == [(b"transfer-encoding", b"chunked")]
    assert server.connections == 1
