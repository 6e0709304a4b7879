"""The proxy's own HTTP protocol, over real sockets: what comes in, what goes out, who hangs up."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http import protocol
from proxy.http.asgi import Headers, Receive, Scope, Send
from tests.helpers.raw_http import Lone, echo, post, read_all
from tests.helpers.serving import wait_until

START = "http.response.start"
BODY = "http.response.body"


@pytest.fixture(scope="module")
def echoing() -> Iterator[Lone]:
    with Lone(echo) as server:
        yield server


def test_requests_on_one_connection_one_after_the_other(echoing: Lone) -> None:
    with echoing.connect() as client:
        for n in range(3):
            client.send(post(f"/p{n}?q={n}", b"x" * n))
            status, headers, body = client.read_answer()
            assert (status, body) == (200, f"POST /p{n} q={n} {'x' * n}".encode())
            assert "connection" not in headers


def test_pipelined_requests_are_answered_in_their_order(echoing: Lone) -> None:
    with echoing.connect() as client:
        client.send(*(post(f"/{n}", b"y" * 1000 * n) for n in range(20)))
        for n in range(20):
            assert client.read_answer()[2] == f"POST /{n}  {'y' * 1000 * n}".encode()


REQUESTS = [
    b"GET /a%20b?c=%20d HTTP/1.1\r\nhost: x\r\n\r\n",
    post("/one", b"first body"),
    b"POST /two HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nab\r\n\r\n0\r\n\r\n",
    b"HEAD /three HTTP/1.1\r\nHOST: x\r\n\r\n",
    b"GET http://x/four#fragment HTTP/1.1\r\nhost: x\r\n\r\n",
    post("/five", b"b" * 100_000),
]
ANSWERS = [
    b"GET /a b c=%20d ",
    b"POST /one  first body",
    b"POST /two  ab\r\n",
    b"",
    b"GET /four  ",
    b"POST /five  " + b"b" * 100_000,
]


@settings(max_examples=40)
@given(st.lists(st.integers(1, 120), min_size=1, max_size=60))
def test_however_the_bytes_are_cut(echoing: Lone, cuts: list[int]) -> None:
    sent = b"".join(REQUESTS)
    with echoing.connect() as client:
        at = 0
        for cut in cuts:
            client.send(sent[at : at + cut])
            at += cut
        client.send(sent[at:])
        found = []
        for n, _ in enumerate(REQUESTS):
            if n == 3:  # an answer to HEAD has a length and no body
                client.read_until(b"\r\n\r\n")
                found.append(b"")
            else:
                found.append(client.read_answer()[2])
        assert found == ANSWERS


def test_bytes_that_are_not_http_get_a_400(echoing: Lone) -> None:
    with echoing.connect() as client:
        client.send(b"this is not HTTP\r\n\r\n")
        said = client.read_all()
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in said


@pytest.mark.slow
def test_nonsense_after_a_request_does_not_spoil_its_answer() -> None:
    go = threading.Event()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        await asyncio.to_thread(go.wait, 20)
        await send({"type": START, "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": BODY, "body": b"good"})

    with Lone(answer) as server, server.connect() as client:
        client.send(post(), b"this is not HTTP\r\n\r\n")
        time.sleep(0.2)
        go.set()
        said = client.read_all()
    assert said == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"


def test_a_head_without_an_end_is_refused(echoing: Lone) -> None:
    with echoing.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nx: ")
        said = b""
        try:
            for _ in range(200):
                client.send(b"y" * 65536)
        except OSError:
            pass
        said = client.read_all()
    assert said.startswith(b"HTTP/1.1 431 ") or not said  # the kernel may drop it with the rest


def test_an_upgrade_is_answered_as_if_it_had_not_been_asked_for(echoing: Lone) -> None:
    """Java's client offers HTTP/2 with every first request."""
    upgrade = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAM")
    with echoing.connect() as client:
        client.send(post("/java", b"body", *upgrade), post("/next", b"more"))
        assert client.read_answer()[2] == b"POST /java  body"
        assert client.read_answer()[2] == b"POST /next  more"


def test_a_client_that_asks_before_it_sends_its_body(echoing: Lone) -> None:
    with echoing.connect() as client:
        client.send(post("/", b"", "expect: 100-continue").replace(b"length: 0", b"length: 3"))
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc")
        assert client.read_answer()[2] == b"POST /  abc"


@pytest.mark.parametrize("line", ["GET / HTTP/1.0", "GET / HTTP/1.1\r\nconnection: close"])
def test_connection_close_ends_after_one_answer(echoing: Lone, line: str) -> None:
    with echoing.connect() as client:
        client.send(line.encode(), b"\r\nhost: x\r\n\r\n")
        _, headers, _ = client.read_answer()
        assert headers["connection"] == "close"
        assert client.read_all() == b""


# ---- what goes out


def answering(status: int, headers: Headers, *parts: bytes) -> Lone:
    """A server that gives one answer to everything."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        await send({"type": START, "status": status, "headers": headers})
        for part in parts:
            await send({"type": BODY, "body": part, "more_body": True})
        await send({"type": BODY, "body": b""})

    return Lone(answer)


def test_without_a_length_it_is_chunked() -> None:
    parts = (b"one", b"", b"two")
    with answering(201, [(b"X-Some", b"t\tab \xe4")], *parts) as server, server.connect() as client:
        client.send(post())
        assert client.read_until(b"0\r\n\r\n") == (
            b"HTTP/1.1 201 Created\r\nx-some: t\tab \xe4\r\ntransfer-encoding: chunked\r\n\r\n"
            b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
        )


@pytest.mark.parametrize(("status", "method"), [(204, "GET"), (304, "GET"), (200, "HEAD")])
def test_an_answer_without_a_body(status: int, method: str) -> None:
    with answering(status, []) as server, server.connect() as client:
        for _ in range(2):
            client.send(f"{method} / HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            head = client.read_until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"transfer-encoding" not in head


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\nb: c"),
        (b"x", b"a\r"),
        (b"x", b"nul\0"),
        (b"x", b"\r\n"),
        (b"a: b\r\nc", b"d"),
        (b"", b"nameless"),
    ],
)
@pytest.mark.slow
def test_a_header_value_cannot_become_two_headers(header: tuple[bytes, bytes]) -> None:
    with answering(200, [header], b"secret") as server, server.connect() as client:
        client.send(post())
        status, headers, _ = client.read_answer()
    assert status == 500
    assert "set-cookie" not in headers and "b" not in headers and "c" not in headers


@pytest.mark.parametrize("parts", [(b"four",), (b"four", b"four", b"four")])
def test_a_body_of_another_length_than_declared_is_an_error(parts: tuple[bytes, ...]) -> None:
    with answering(200, [(b"content-length", b"8")], *parts) as server, server.connect() as client:
        client.send(post())
        said = client.read_all()  # the connection is closed: nobody can take it for a whole answer
    assert said.endswith(b"\r\n\r\n" + b"".join(parts)[: len(said.partition(b"\r\n\r\n")[2])])


def test_the_head_of_an_answer_that_is_broken_off_is_there() -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": START, "status": 200, "headers": [(b"content-length", b"8")]})
        raise RuntimeError

    with Lone(answer) as server, server.connect() as client:
        client.send(post())
        assert client.read_all() == b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n"


# ---- clients that do not read, and clients that do nothing


@pytest.mark.slow
def test_a_client_that_does_not_read_is_waited_for() -> None:
    """Its buffer is bounded, and it gets the whole answer once it reads."""
    chunk, count = b"z" * 65536, 400
    sent = 0

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await read_all(receive)
        await send({"type": START, "status": 200, "headers": []})
        for _ in range(count):
            await send({"type": BODY, "body": chunk, "more_body": True})
            sent += 1
        await send({"type": BODY, "body": b""})

    with Lone(answer) as server, server.connect() as client:
        client.send(post())
        wait_until(lambda: sent)
        time.sleep(0.5)
        before = sent
        time.sleep(0.5)
        [connection] = server.connections
        kept = connection.transport.get_write_buffer_size()
        assert sent == before < count  # the rest is in the kernel's buffers
        assert kept <= 65536 + 2 * len(chunk)
        _, _, body = client.read_answer()
        assert len(body) == count * len(chunk)


@pytest.mark.slow
def test_a_client_that_never_reads_is_given_up() -> None:
    lost = threading.Event()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["on_disconnect"](lost.set)
        await send({"type": START, "status": 200, "headers": []})
        while not lost.is_set():
            await send({"type": BODY, "body": b"z" * 65536, "more_body": True})

    with Lone(answer) as server, server.connect() as client:
        client.send(post())
        wait_until(lambda: server.connections and server.connections[0]._stalled_at is not None)
        [connection] = server.connections
        assert server.loop is not None
        now = server.loop.time()
        server.call(connection.look_after, now + protocol.STALL_S / 2)
        assert not lost.wait(0.3)
        server.call(connection.look_after, now + protocol.STALL_S + 5)
        assert lost.wait(10)


@pytest.mark.slow
def test_an_idle_client_is_closed(echoing: Lone) -> None:
    with echoing.connect() as client:
        client.send(post())
        client.read_answer()
        time.sleep(0.2)
        [connection] = echoing.connections
        assert echoing.loop is not None
        now = echoing.loop.time()
        echoing.call(connection.look_after, now + 60)
        assert echoing.connections == [connection]
        echoing.call(connection.look_after, now + 80)
        assert client.read_all() == b""
    wait_until(lambda: not echoing.connections)


@pytest.mark.parametrize(
    ("begun", "answer"),
    [
        (b"", b""),
        (b"POST / HTTP/1.1\r\nx: y", b"HTTP/1.1 408 "),
        (post("/", b"abc")[:-1], b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n", b"HTTP/1.1 408 "),
    ],
    ids=["nothing", "head", "body", "chunks"],
)
@pytest.mark.parametrize("after_another", [False, True])
def test_a_request_that_is_never_whole_is_ended(
    echoing: Lone, begun: bytes, answer: bytes, after_another: bool
) -> None:
    if after_another and not begun:
        return  # an idle client, see above
    with echoing.connect() as client:
        if after_another:
            client.send(post())
            client.read_answer()
        client.send(begun)
        [connection] = wait_until(lambda: echoing.connections)
        wait_until(lambda: not begun or connection._head_bytes or connection.cycle is not None)
        assert echoing.loop is not None
        now = echoing.loop.time()
        echoing.call(connection.look_after, now + protocol.HEAD_TIMEOUT_S / 2)
        assert echoing.connections == [connection]
        echoing.call(connection.look_after, now + protocol.HEAD_TIMEOUT_S + 5)
        assert client.read_all().startswith(answer)
    wait_until(lambda: not echoing.connections)


def test_a_head_that_drips_has_a_deadline_and_a_body_that_drips_a_rate(echoing: Lone) -> None:
    """Neither is saved by sending one byte more now and then."""
    for drip in (b"POST / HTTP/1.1\r\nx: y", post("/", b"a" * 4000)[:-3000]):
        with echoing.connect() as client:
            client.send(drip)
            [connection] = wait_until(lambda: echoing.connections)
            wait_until(lambda c=connection: c._head_bytes or c.cycle is not None)
            for _ in range(2):
                before = (connection._head_bytes, connection._body_bytes)
                client.send(b"a")
                wait_until(lambda c=connection, b=before: (c._head_bytes, c._body_bytes) != b)
            assert echoing.loop is not None
            echoing.call(connection.look_after, echoing.loop.time() + protocol.HEAD_TIMEOUT_S + 5)
            assert client.read_all().startswith(b"HTTP/1.1 408 ")
        wait_until(lambda: not echoing.connections)


def test_a_body_that_keeps_its_rate_may_take_long(echoing: Lone) -> None:
    with echoing.connect() as client:
        client.send(post("/", b"a" * 100_000)[:-1])
        [connection] = wait_until(lambda: echoing.connections)
        wait_until(lambda: connection._body_bytes == 99_999)
        assert echoing.loop is not None
        echoing.call(connection.look_after, echoing.loop.time() + 60)
        client.send(b"a")
        assert client.read_answer()[0] == 200


def test_a_slow_answer_is_not_closed_as_idle() -> None:
    go = threading.Event()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        await asyncio.to_thread(go.wait, 20)
        await send({"type": START, "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": BODY, "body": b""})

    with Lone(answer) as server, server.connect() as client:
        client.send(post())
        wait_until(lambda: server.connections and server.connections[0].answering)
        assert server.loop is not None
        server.call(server.connections[0].look_after, server.loop.time() + 10_000)
        go.set()
        assert client.read_answer()[0] == 200


@pytest.mark.parametrize("coding", [b"foo", b"chunked, foo", b"gzip"])
def test_an_upgrade_with_an_unknown_transfer_encoding_is_refused(
    echoing: Lone, coding: bytes
) -> None:
    with echoing.connect() as client:
        client.send(
            b"POST / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: ",
            coding,
            b"\r\n\r\n",
        )
        assert client.read_all().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "invalid_http"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nx: y", 408, "request_timeout"),
        (b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\na", 408, "request_timeout"),
    ],
)
def test_what_is_no_request_is_answered_as_every_other_error_is(
    echoing: Lone, sent: bytes, status: int, code: str
) -> None:
    with echoing.connect() as client:
        client.send(sent)
        if status == 408:
            [connection] = wait_until(lambda: echoing.connections)
            wait_until(lambda: connection._head_bytes or connection.cycle is not None)
            assert echoing.loop is not None
            late = echoing.loop.time() + protocol.HEAD_TIMEOUT_S + 5
            echoing.call(connection.look_after, late)
        said = client.read_all()
    head, _, body = said.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/json" in lines and b"connection: close" in lines
    assert b"content-length: %d" % len(body) in lines
    assert any(line.startswith(b"x-request-id: req_") for line in lines)
    error = json.loads(body)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert set(error) == {"message", "type", "param", "code"}


def test_an_application_that_fails_is_answered_for_as_every_other_error_is() -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError

    with Lone(answer) as server, server.connect() as client:
        client.send(post())
        status, headers, body = client.read_answer()
    assert (status, headers["content-type"]) == (500, "application/json")
    assert json.loads(body)["error"]["code"] == "internal"
