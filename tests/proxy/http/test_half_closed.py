"""Clients that shut down writing after their request: who still reads, and who has left."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from proxy.http.asgi import Receive, Scope, Send
from tests.helpers.raw_http import Lone, Raw, echo, post
from tests.helpers.serving import wait_until
from tests.helpers.teacher_server import completion, stream

PATH = "/v1/chat/completions"
JSON = "content-type: application/json"


def asked(streamed: bool) -> bytes:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": streamed}
    return post(PATH, json.dumps(body).encode(), JSON)


def half_closed(port: int, *parts: bytes) -> bytes:
    """What a client gets that shuts down writing after these bytes."""
    with Raw(port) as client:
        client.send(*parts)
        client.socket.shutdown(socket.SHUT_WR)
        return client.read_all()


def body_of(answer: bytes) -> bytes:
    """The body of an answer, with or without chunks."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head:
        return rest
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not (length := int(size, 16)):
            assert rest == b"\r\n"
            return body
        body, rest = body + rest[:length], rest[length + 2 :]


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
@pytest.mark.slow
def test_a_half_closed_client_gets_its_whole_answer(version, proxy, teacher):
    reply = completion("A whole answer.").slow(0.2)
    teacher.script(reply)
    answer = half_closed(proxy.port, asked(False).replace(b"HTTP/1.1", version))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"\r\nconnection: close\r\n" in answer
    assert body_of(answer) == b"".join(reply.chunks)
    assert proxy.wait_for_traces(1)[0]["outcome"] == "complete"


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
@pytest.mark.slow
def test_a_half_closed_client_gets_its_whole_stream(version, proxy, teacher):
    reply = stream("some words in a row").paced(0.03).slow(0.1)
    teacher.script(reply)
    answer = half_closed(proxy.port, asked(True).replace(b"HTTP/1.1", version))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body_of(answer) == b"".join(reply.chunks)
    assert proxy.wait_for_traces(1)[0]["outcome"] == "complete"


@pytest.mark.slow
def test_a_client_that_shuts_down_within_its_stream_gets_the_rest(proxy, teacher):
    reply = stream("some words in a row").paced(0.05)
    teacher.script(reply)
    with Raw(proxy.port) as client:
        client.send(asked(True))
        begun = client.read_until(b"some")
        client.socket.shutdown(socket.SHUT_WR)
        assert body_of(begun + client.read_all()) == b"".join(reply.chunks)
    assert proxy.wait_for_traces(1)[0]["outcome"] == "complete"


def test_a_half_closed_client_gets_all_of_its_pipelined_answers():
    with Lone(echo) as server:
        got = half_closed(server.port, post("/a"), post("/b"), post("/c", b"x" * 10)[:-5])
    # the third request never becomes whole
    assert got.count(b"HTTP/1.1 200 OK") == 2 and got.endswith(b"POST /b  ")
    assert b"connection: close" in got.partition(b"/a")[2]


def test_a_request_that_never_becomes_whole_is_not_answered():
    with Lone(echo) as server:
        assert half_closed(server.port, post("/a", b"body")[:-1]) == b""
        wait_until(lambda: not server.connections)


def test_an_error_reaches_a_half_closed_client(proxy):
    answer = half_closed(proxy.port, post(PATH, b"no JSON", JSON))
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert json.loads(body_of(answer))["error"]["type"] == "invalid_request_error"


def test_a_continue_is_not_said_within_the_status_line():
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        wait_for = server.connections[0]
        while not wait_for.half_closed:  # noqa: ASYNC110  (set by the connection)
            await asyncio.sleep(0.01)
        await echo(scope, receive, send)

    with Lone(late) as server:
        got = half_closed(server.port, post("/a", b"body", "expect: 100-continue"))
    assert got.startswith(b"HTTP/1.1 200 OK\r\n") and got.endswith(b"POST /a  body")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_that_left_at_once_ends_the_teachers_call(streamed, proxy, teacher):
    reply = stream("too late") if streamed else completion("Too late.")
    teacher.script(reply.slow(20))
    with Raw(proxy.port) as client:
        client.send(asked(streamed))
    wait_until(lambda: teacher.hang_ups == 1)
    assert proxy.wait_for_traces(1)[0]["outcome"] == "client_gone"


def test_a_client_that_leaves_a_silent_stream_ends_the_teachers_call(proxy, teacher):
    teacher.script(stream("one two three").paced(20).held(None))
    with Raw(proxy.port) as client:
        client.send(asked(True))
        client.read_until(b"\r\n\r\n")
    wait_until(lambda: teacher.hang_ups == 1)
    assert proxy.wait_for_traces(1)[0]["outcome"] == "client_gone"


@pytest.mark.slow  # looked at once a second
def test_a_client_that_shuts_down_and_leaves_later_is_noticed(proxy, teacher):
    teacher.script(completion("Too late.").slow(20))
    with Raw(proxy.port) as client:
        client.send(asked(False))
        client.socket.shutdown(socket.SHUT_WR)
        assert client.socket.recv(1) == b"H"
    wait_until(lambda: teacher.hang_ups == 1)
    assert proxy.wait_for_traces(1)[0]["outcome"] == "client_gone"
