"""Draining: a worker that stops answers every request it can. And: clients that hang up."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from proxy.http.asgi import Receive, Scope, Send
from proxy.http.protocol import LINGER_S
from store.process.runtime import RETIRE
from store.process.workers import Roster
from tests.helpers.raw_http import Lone, Raw, echo, post, read_all
from tests.helpers.serving import ProxyProcess, settings, wait_until
from tests.helpers.teacher_server import LoopbackServer, completion, stream

START = "http.response.start"
BODY = "http.response.body"


class Gate:
    """An application whose answers wait until they are let through."""

    def __init__(self, *, stream: bool = False) -> None:
        self.open = threading.Event()
        self.begun: list[Scope] = []
        self.cancelled = 0
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_all(receive)
        self.begun.append(scope)
        length = [] if self._stream else [(b"content-length", b"%d" % len(body))]
        if self._stream:
            await send({"type": START, "status": 200, "headers": length})
            await send({"type": BODY, "body": b"begun", "more_body": True})
        try:
            while not self.open.is_set():  # noqa: ASYNC110  (set by another thread)
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if not self._stream:
            await send({"type": START, "status": 200, "headers": length})
        await send({"type": BODY, "body": body})


def ended(server: Lone, within_s: float) -> bool:
    server.thread.join(within_s)
    return not server.thread.is_alive()


@pytest.mark.slow
def test_a_request_under_way_is_answered_and_says_that_it_is_the_last() -> None:
    app = Gate()
    with Lone(app, drain_s=20) as server, server.connect() as client:
        client.send(post("/", b"mine"))
        wait_until(lambda: app.begun)
        server.drain()
        assert not ended(server, 1.5)
        app.open.set()
        status, headers, body = client.read_answer()
        assert (status, headers["connection"], body) == (200, "close", b"mine")
        assert client.read_all() == b""
        assert ended(server, 5)


@pytest.mark.slow
def test_a_stream_under_way_goes_on_to_its_end_and_one_more_request_is_answered() -> None:
    """Its head has said nothing of closing, so its client may come again in the same moment."""
    app = Gate(stream=True)
    with Lone(app, drain_s=20) as server, server.connect() as client:
        client.send(post("/", b"mine"))
        client.read_until(b"begun")
        server.drain()
        assert not ended(server, 1.5)
        app.open.set()
        client.read_until(b"0\r\n\r\n")
        client.send(post("/", b"more"))
        status, headers, body = client.read_answer()
        assert (status, headers["connection"], body) == (200, "close", b"begunmore")
        assert ended(server, 5)


@pytest.mark.slow
def test_a_request_over_the_drain_time_is_cut_off() -> None:
    app = Gate(stream=True)
    with Lone(app, drain_s=1) as server, server.connect() as client:
        client.send(post("/", b"mine"))
        client.read_until(b"begun")
        server.drain()
        said = client.read_all()
        assert ended(server, 5)
    assert app.cancelled == 1
    assert not said.endswith(b"0\r\n\r\n")  # nobody takes it for a whole answer


@pytest.mark.slow
def test_idle_connections_are_closed_and_may_come_once_more_before() -> None:
    with (
        Lone(echo) as server,
        server.connect() as idle,
        server.connect() as late,
        server.connect() as fresh,
    ):
        for client in (idle, late):
            client.send(post())
            client.read_answer()
        wait_until(lambda: len(server.connections) == 3)
        began = time.monotonic()
        server.drain()
        wait_until(lambda: all(c.draining for c in server.connections))
        time.sleep(LINGER_S / 3)
        late.send(post("/late"))
        status, headers, _ = late.read_answer()
        assert (status, headers["connection"]) == (200, "close")
        fresh.send(post("/fresh"))
        assert fresh.read_answer()[1]["connection"] == "close"
        assert idle.read_all() == b""
        assert ended(server, 5)
        assert time.monotonic() - began < LINGER_S + 1


def test_pipelined_requests_are_all_answered() -> None:
    app = Gate()
    with Lone(app, drain_s=20) as server, server.connect() as client:
        client.send(*(post("/", b"%d" % n) for n in range(5)))
        wait_until(lambda: app.begun)
        server.drain()
        wait_until(lambda: server.connections[0].draining)
        app.open.set()
        answers = [client.read_answer() for _ in range(5)]
        assert [body for _, _, body in answers] == [b"0", b"1", b"2", b"3", b"4"]
        assert [h.get("connection") for _, h, _ in answers] == [None] * 4 + ["close"]
        assert client.read_all() == b""


@pytest.mark.slow
def test_connections_in_the_queue_are_answered_while_draining() -> None:
    """A worker that stops empties the queue: there may be nobody else to do it."""
    blocked = threading.Event()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/block":
            blocked.set()
            time.sleep(1)  # noqa: ASYNC251  (nothing is accepted meanwhile)
        await echo(scope, receive, send)

    with Lone(answer) as server, server.connect() as first:
        first.send(post("/block"))
        assert blocked.wait(10)
        with ThreadPoolExecutor(1) as pool:
            waiting = [server.connect() for _ in range(50)]
            for client in waiting:
                client.send(post("/waiting"))
            server.drain()
            answers = list(pool.map(Raw.read_answer, waiting))
        assert {status for status, _, _ in answers} == {200}
        for client in waiting:
            client.socket.close()
        assert ended(server, 5)


# ---- the whole proxy as a process


def ask(proxy: ProxyProcess, **more: Any) -> bytes:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], **more}
    answer = httpx.post(f"{proxy.base_url}/chat/completions", json=body, timeout=30)
    assert answer.status_code == 200
    return answer.content


@pytest.mark.slow
def test_a_retired_worker_has_time_and_a_stop_shortens_it(
    teacher: LoopbackServer, tmp_path: Any
) -> None:
    raw = settings(teacher.base_url, tmp_path / "data", server={"drain_s": 0.5})
    with ProxyProcess(raw, tmp_path) as proxy, ThreadPoolExecutor(2) as pool:
        teacher.answer = lambda request: completion("late").slow(2)
        asked = pool.submit(ask, proxy)
        wait_until(lambda: teacher.requests)
        proxy.process.send_signal(RETIRE)
        assert b"late" in asked.result()  # later than drain_s
        assert proxy.process.wait(10) == 0
        assert len(proxy.wait_for_traces(1)) == 1

    teacher.answer = lambda request: stream("one two three four five").paced(1)
    with ProxyProcess(raw, tmp_path) as proxy, ThreadPoolExecutor(1) as pool:
        before = len(teacher.requests)
        asked = pool.submit(ask, proxy, stream=True)
        wait_until(lambda: len(teacher.requests) > before)
        proxy.process.send_signal(RETIRE)
        time.sleep(1.5)
        assert proxy.process.poll() is None
        began = time.monotonic()
        assert proxy.signal(signal.SIGTERM) == 0
        assert time.monotonic() - began < 2.5
        assert asked.exception() is not None
        traces = proxy.wait_for_traces(2)  # cancelled requests are in the journal too
        assert traces[1]["outcome"] != "ok"


@pytest.mark.slow
def test_a_retired_worker_waits_longer_than_clients_keep_idle_connections(
    teacher: LoopbackServer, tmp_path: Any
) -> None:
    """A stop does not: somebody waits for its end."""
    raw = settings(teacher.base_url, tmp_path / "data")
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}
    with ProxyProcess(raw, tmp_path) as proxy, httpx.Client(timeout=60) as client:
        asked = [client.post(f"{proxy.base_url}/chat/completions", json=body)]
        proxy.process.send_signal(RETIRE)
        time.sleep(2 * LINGER_S)
        asked.append(client.post(f"{proxy.base_url}/chat/completions", json=body))
        assert [answer.status_code for answer in asked] == [200, 200]
        assert asked[1].headers["connection"] == "close"
        assert proxy.process.wait(20) == 0


@pytest.mark.slow
@pytest.mark.parametrize("others", [True, False])
def test_a_worker_that_ends_alone_waits_longer_for_requests_on_idle_connections(
    others: bool,
) -> None:
    roster = Roster.create(2)
    with Lone(echo, roster=roster) as server, server.connect() as idle:
        idle.send(post())
        idle.read_answer()
        if others:
            roster.beat(1, 0)
        server.drain()
        if others:
            for _ in range(4):
                time.sleep(LINGER_S / 2)
                roster.beat(1, 0)
            idle.send(post("/late"))
            assert idle.read_answer()[1]["connection"] == "close"
        else:
            assert idle.read_all() == b""
            assert ended(server, 5)


# ---- clients that hang up


def disconnecting(
    register: Callable[[Scope, list[str]], None],
) -> tuple[Callable[..., Any], list[str], threading.Event]:
    heard: list[str] = []
    go = threading.Event()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        register(scope, heard)
        while not go.is_set():  # noqa: ASYNC110  (set by another thread)
            await asyncio.sleep(0.01)
        await send({"type": START, "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": BODY, "body": b"ok"})
        heard.append("answered")

    return answer, heard, go


def test_on_disconnect_is_called_once() -> None:
    app, heard, go = disconnecting(lambda s, h: s["on_disconnect"](lambda: h.append(s["path"])))
    with Lone(app) as server:
        with server.connect() as client, server.connect() as other:
            client.send(post("/one"))
            other.send(post("/other"))
            wait_until(lambda: len(server.worker.server_state.tasks) == 2)
            client.socket.close()
            wait_until(lambda: heard)
            go.set()
            assert other.read_answer()[0] == 200
        wait_until(lambda: heard.count("answered") == 2)
    assert sorted(heard) == ["/one", "answered", "answered"]


def test_of_pipelined_requests_only_the_present_one_is_told_of_a_disconnect() -> None:
    app, heard, go = disconnecting(lambda s, h: s["on_disconnect"](lambda: h.append(s["path"])))
    with Lone(app) as server:
        with server.connect() as client:
            client.send(post("/one"), post("/two"), post("/three"))
            wait_until(lambda: server.connections and len(server.connections[0].pipeline) == 2)
        wait_until(lambda: heard)
        go.set()
        wait_until(lambda: "answered" in heard)
    assert heard == ["/one", "answered"]  # the others are never begun: nobody would read them


def test_a_removed_on_disconnect_is_not_called() -> None:
    def register(scope: Scope, heard: list[str]) -> None:
        scope["on_disconnect"](lambda: heard.append("first"))
        scope["on_disconnect"](None)

    app, heard, go = disconnecting(register)
    with Lone(app) as server:
        with server.connect() as client:
            client.send(post("/one"))
            wait_until(lambda: server.worker.server_state.tasks)
        wait_until(lambda: not server.connections)
        go.set()
        wait_until(lambda: heard)
    assert heard == ["answered"]


@pytest.mark.slow
def test_on_disconnect_is_not_called_after_a_complete_answer() -> None:
    heard: list[str] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["on_disconnect"](lambda: heard.append("gone"))
        await echo(scope, receive, send)
        await asyncio.sleep(0.5)

    with Lone(answer) as server:
        with server.connect() as client:
            client.send(post("/one"))
            client.read_answer()
        wait_until(lambda: not server.connections)
    assert heard == []


def test_on_disconnect_set_late_is_called_soon() -> None:
    heard: list[str] = []
    go, done = threading.Event(), threading.Event()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        while not go.is_set():  # noqa: ASYNC110  (set by another thread)
            await asyncio.sleep(0.01)
        scope["on_disconnect"](lambda: heard.append("taken back"))
        scope["on_disconnect"](None)
        scope["on_disconnect"](lambda: heard.append("gone"))
        assert heard == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done.set()

    with Lone(answer) as server:
        with server.connect() as client:
            client.send(post("/one"))
            wait_until(lambda: server.worker.server_state.tasks)
        wait_until(lambda: not server.connections)
        go.set()
        assert done.wait(10)
    assert heard == ["gone"]


@pytest.mark.slow
def test_a_wait_in_receive_ends_with_a_disconnect() -> None:
    heard: list[Any] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(receive)
        heard.append(await receive())
        await send({"type": START, "status": 200, "headers": []})  # goes nowhere, and harms nobody
        await send({"type": BODY, "body": b"x"})
        heard.append(await receive())

    with Lone(answer) as server:
        with server.connect() as client:
            client.send(post("/one", b"body"))
            wait_until(lambda: server.worker.server_state.tasks)
            time.sleep(0.1)
        wait_until(lambda: len(heard) == 2)
    assert heard == [{"type": "http.disconnect"}] * 2
