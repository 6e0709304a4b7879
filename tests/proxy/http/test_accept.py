"""What happens when there are more connections than descriptors."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
import threading

import pytest

from proxy.http.accept import Acceptor, connections_within
from proxy.http.asgi import Receive, Scope, Send
from proxy.http.kernel import has_unread
from tests.helpers.paths import ROOT
from tests.helpers.raw_http import Lone, Raw, echo, post
from tests.helpers.serving import wait_until


def test_connections_beyond_the_limit_are_refused_at_once_and_others_served() -> None:
    with Lone(echo) as server:
        assert server.worker._acceptor is not None
        server.worker._acceptor._max_connections = 2
        refused: list[int] = []
        server.worker._acceptor._refused = refused.append
        with server.connect() as first, server.connect() as second:
            wait_until(lambda: len(server.connections) == 2)
            with server.connect() as third:
                third.send(post())
                answer = third.read_all()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"connection: close" in answer and b"too_many_connections" in answer
            wait_until(lambda: refused == [503])
            for client in (first, second):
                client.send(post("/x", b"y"))
                assert client.read_answer()[0] == 200
        wait_until(lambda: not server.connections)
        with server.connect() as later:
            later.send(post())
            assert later.read_answer()[0] == 200


def asked(client: Raw) -> Raw:
    client.send(post("/x", b"y"))
    assert client.read_answer()[0] == 200
    return client


def acceptor_of(server: Lone) -> Acceptor:
    assert server.worker._acceptor is not None
    return server.worker._acceptor


def full_with(server: Lone, connections: int) -> None:
    acceptor_of(server)._max_connections = connections


def test_a_new_connection_takes_the_place_of_the_one_that_is_idle_for_longest() -> None:
    with Lone(echo) as server:
        full_with(server, 3)
        with server.connect() as first, server.connect() as second, server.connect() as third:
            wait_until(lambda: len(server.connections) == 3 and not acceptor_of(server)._opening)
            for client in (first, second, third, first):
                asked(client)
            with server.connect() as fourth:
                asked(fourth)
                assert second.read_all() == b""  # closed, without a word
                with server.connect() as fifth:
                    asked(fifth)
                    assert third.read_all() == b""
                    asked(first)
        wait_until(lambda: not server.connections)
        assert not acceptor_of(server)._idle and not acceptor_of(server)._leaving


def test_nobody_gives_way_with_a_request_under_way_or_half_sent() -> None:
    go = threading.Event()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await asyncio.to_thread(go.wait, 20)
        await echo(scope, receive, send)

    with Lone(answer) as server:
        full_with(server, 2)
        with server.connect() as busy, server.connect() as sending:
            asked(busy).send(post("/slow"))
            asked(sending).send(post("/x", b"abc")[:-1])
            wait_until(lambda: [bool(c.answering) for c in server.connections] == [True, True])
            with server.connect() as another:
                another.send(post())
                assert another.read_all().startswith(b"HTTP/1.1 503 ")
            go.set()
            sending.send(b"c")
            assert busy.read_answer()[0] == sending.read_answer()[0] == 200


def test_a_connection_whose_next_request_has_come_gives_way_to_nobody() -> None:
    with Lone(echo) as server, server.connect() as client:
        asked(client)
        [connection] = server.connections
        gave_way = []

        def in_the_loop() -> None:
            client.send(post())
            wait_until(lambda: has_unread(connection.transport))
            gave_way.append(connection.give_way())

        server.call(in_the_loop)
        assert gave_way == [False]
        assert client.read_answer()[0] == 200


def test_idle_connections_are_closed_when_the_descriptors_of_the_process_run_out() -> None:
    """Whoever took them: the next connection comes in as soon as an idle one has gone."""
    with Lone(echo) as server, server.connect() as idle:
        acceptor = acceptor_of(server)
        asked(idle)
        listening = acceptor._listening
        acceptor._listening = OutOfDescriptors(listening)  # type: ignore[assignment]
        with server.connect() as client:
            client.send(post())
            assert client.read_answer()[0] == 200
        assert idle.read_all() == b""


class OutOfDescriptors:
    """A listening socket whose first `accept` fails as the kernel's does."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._failed = False

    def accept(self) -> tuple[socket.socket, object]:
        if not self._failed:
            self._failed = True
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listening.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self._listening, name)


@pytest.mark.parametrize(
    ("descriptors", "in_flight", "connections"),
    [(1024, 1000, 448), (1024, 100, 860), (65536, 1000, 64472), (100, 1000, 1)],
)
def test_descriptors_are_kept_for_upstreams_and_the_journal(
    descriptors: int, in_flight: int, connections: int
) -> None:
    assert connections_within(descriptors, in_flight) == connections


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    code = (
        "import resource; from store.process.descriptors import raise_descriptor_limit as up;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (128, 512));"
        "print(up(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["512", "512", "512"]
