"""HTTP by hand, for what no client would send: a worker with a small application, and a socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any, Self

from proxy.http.asgi import Handler, Receive, Scope, Send
from proxy.http.protocol import Protocol
from proxy.worker import Worker, worker
from store.process.workers import Roster
from tests.helpers.serving import wait_until


class Lone:
    """An application as a worker in a thread; leaving drains it."""

    def __init__(
        self, answer: Handler, *, drain_s: float = 5.0, roster: Roster | None = None
    ) -> None:
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.loop: asyncio.AbstractEventLoop | None = None
        self.worker: Worker = worker(
            self._app,  # type: ignore[arg-type]
            drain_s=drain_s,
            roster=roster,
        )
        self.thread = threading.Thread(
            target=self.worker.run, kwargs={"sockets": [self._listening]}, daemon=True
        )

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
            return
        self.loop = asyncio.get_running_loop()
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def __enter__(self) -> Self:
        self.thread.start()
        wait_until(lambda: self.worker.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.drain()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def drain(self) -> None:
        """Begins to drain."""
        self.worker.should_exit = True

    def connect(self) -> Raw:
        return Raw(self.port)

    @property
    def connections(self) -> list[Protocol]:
        return [c for c in self.worker.server_state.connections if isinstance(c, Protocol)]

    def call(self, what: Callable[..., object], *arguments: Any) -> None:
        """Calls something in the worker's own thread, and waits for it."""
        done = threading.Event()

        def do() -> None:
            what(*arguments)
            done.set()

        assert self.loop is not None
        self.loop.call_soon_threadsafe(do)
        assert done.wait(10)


class Raw:
    """A client's socket."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def read_until(self, end: bytes) -> bytes:
        """What comes up to and with `end`."""
        got = b""
        while not got.endswith(end):
            more = self.socket.recv(1)
            assert more, f"closed after {got!r}"
            got += more
        return got

    def read_answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer with a length, or of a chunked one."""
        head = self.read_until(b"\r\n\r\n").decode("latin-1")
        line, *fields = head.strip().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.read_until(b"\r\n"), 16):
                body += self._exactly(size)
                self._exactly(2)
            self._exactly(2)
        else:
            body = self._exactly(int(headers.get("content-length", 0)))
        return int(line.split()[1]), headers, body

    def read_all(self) -> bytes:
        """Everything until the other side closes, or hangs up."""
        got = b""
        try:
            while more := self.socket.recv(65536):
                got += more
        except ConnectionResetError:
            pass
        return got

    def _exactly(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            more = self.socket.recv(size - len(got))
            assert more, f"closed after {got!r}"
            got += more
        return got


def post(path: str = "/", body: bytes = b"", *fields: str) -> bytes:
    """A request."""
    head = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}", *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


async def read_all(receive: Receive) -> bytes:
    """The whole body, as an application reads it."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += message["body"]
        if not message["more_body"]:
            return body


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with method, path, query and body."""
    body = await read_all(receive)
    said = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} ".encode() + body
    length = (b"content-length", b"%d" % len(said))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": said})
