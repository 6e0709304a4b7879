"""A client's connection: HTTP/1.1 to ASGI, on top of uvicorn's protocol for httptools.

What is different from uvicorn's own:

- `scope["on_disconnect"]` takes a callback for when the client hangs up before its answer is
  complete, and `scope["task"]` is the task that answers it. Nobody has to wait in `receive` for
  that, so it costs no task of its own.
- Draining: whoever may come with one more request is heard for `LINGER_S` and told
  `connection: close` in the answer, since a request that meets a closing connection is lost.
- Idle connections, clients that stop in the middle of a request and clients that do not read are
  noticed by one look at all connections a second, instead of by a timer for each request.
- It does less for each request; `proxy.http.cycle` has the other half of that.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
import urllib.parse
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from proxy.http.cycle import Cycle

HEAD_LIMIT = 64 * 1024  # bytes of a request line with its headers, or of what follows a body
PIPELINED = 16  # requests that wait for an earlier one's answer before no more are read
LINGER_S = 1.0  # how long a draining connection waits for one more request
STALL_S = 300.0  # how long a client may leave an answer unread


class Protocol(HttpToolsProtocol):
    """One connection. `cycle` is the request that came last, `answering` the one being answered."""

    cycle: Cycle | None  # type: ignore[assignment]
    answering: Cycle | None = None
    draining = False
    on_gone: Callable[[], None] | None = None  # called when the connection is no more
    _head_bytes: int | None = None  # of a request whose headers are not complete; None: no such
    # bytes since the head, or a piece of the body, that brought nothing along: trailers, say;
    _beside_body = -1  # -1: there was some just now
    _body_is_left = False  # the parser takes a request that offers an upgrade to end with its head
    _broken = False  # what came is no HTTP: nothing more is read
    _stalled_at: float | None = None  # since when the client leaves an answer unread
    _heard_at = 0.0  # when the client last sent something, or got the end of an answer

    # ---- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._heard_at = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.parser = None  # type: ignore[assignment]
        self.pipeline.clear()
        self.flow.resume_writing()
        if self.on_gone is not None:
            self.on_gone()
        under_way, self.answering, self.cycle = self.answering, None, None
        if under_way is not None:
            under_way.lost()

    def pause_writing(self) -> None:
        """Called when more waits for the client than is kept for it: `send` waits from now on."""
        self._stalled_at = self.loop.time()
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        """Called when the client has read on."""
        self._stalled_at = None
        self.flow.resume_writing()

    def look_after(self, now: float) -> None:
        """Closes the connection when its client has been idle, or in the way, for too long."""
        if self._stalled_at is not None:
            if now - self._stalled_at > STALL_S:
                self.transport.abort()
        elif now - self._heard_at > self.timeout_keep_alive and self._waits_for_client():
            if self.transport.get_write_buffer_size():
                self.transport.abort()  # it would wait for its reader
            else:
                self.transport.close()

    def _waits_for_client(self) -> bool:
        if self.answering is None:
            return True
        # unless it is us who do not read: then it is the upstream that its upload waits for
        sending = self.cycle is self.answering and self.cycle.more_body
        return sending and not self.flow.read_paused

    # ---- draining

    def shutdown(self) -> None:
        """From now on each answer says that the connection closes after it."""
        if not self.draining:
            self.draining = True
            self._heard_at = self.loop.time()

    def linger(self, now: float) -> None:
        """Closes a draining connection that has nothing under way for `LINGER_S`."""
        idle = self.answering is None and self._head_bytes is None
        if idle and now - self._heard_at >= LINGER_S and not self._has_unread():
            self.transport.close()

    def _has_unread(self) -> bool:
        """Whether the kernel holds something of this client that was not read yet."""
        try:
            fd = self.transport.get_extra_info("socket").fileno()
            waiting = fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0")
        except (OSError, ValueError):  # closed by now, the latter by Python's word
            return False
        return bool(struct.unpack("i", waiting)[0])

    # ---- what comes in

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        self._heard_at = self.loop.time()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # we do not: the request is answered as any other, and what follows is HTTP still
            if self._body_is_left:
                self._body_is_left = False
                self.parser = _parser_of_a_body(self)
            rest = data[upgrade.args[0] :]
            if rest:
                self.data_received(rest)
            return
        except httptools.HttpParserError:
            self._refuse(400, "Invalid HTTP request received.")
            return
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT:
                self._refuse(431, "The headers of the request are too large.")
        elif self.cycle is not None and self.cycle.more_body:
            self._beside_body = 0 if self._beside_body < 0 else self._beside_body + len(data)
            if self._beside_body > HEAD_LIMIT:
                self._refuse(431, "The trailers of the request are too large.")

    def _refuse(self, status: int, message: str) -> None:
        """Answers what is no request, unless an answer is under way: that one is ended first."""
        self._broken = True
        self._head_bytes = None
        under_way = self.answering
        if under_way is not None and (under_way is not self.cycle or not under_way.more_body):
            under_way.close_after = True
            self.pipeline.clear()
            return
        if under_way is None or not under_way.response_started:
            head = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
            length = b"content-length: %d\r\n\r\n" % len(message)
            self.transport.write(STATUS_LINE[status] + head + length + message.encode())
        self.transport.close()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_bytes is None:
            return  # a trailer: what counts stands in the head (RFC 9110, section 6.5.1)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        self._beside_body = -1
        url = self.url
        if url[:1] == b"/" and b"#" not in url:
            raw_path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            raw_path, query = parsed.path or b"/", parsed.query or b""
        path = raw_path.decode("ascii")
        if "%" in path:
            path = urllib.parse.unquote(path)
        http_version = self.parser.get_http_version()
        if self.parser.should_upgrade():
            self._body_is_left = any(name in _FRAMING for name, _ in self.headers)
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": http_version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "headers": self.headers,
            "state": self.app_state,
            "method": self.parser.get_method().decode("ascii"),
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
        }
        keep_alive = http_version != "1.0" and self.parser.should_keep_alive()
        cycle = Cycle(self, scope, keep_alive=keep_alive)
        cycle.waiting_for_100_continue = self.expect_100_continue
        self.cycle = cycle
        if self.answering is None:
            self._answer(cycle)
        else:  # pipelined: answers keep the order of their requests
            if len(self.pipeline) >= PIPELINED:
                self.flow.pause_reading()  # from now on nobody notices when the client hangs up
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        assert cycle is not None
        self._beside_body = -1
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.wake()

    def on_message_complete(self) -> None:
        cycle = self.cycle
        assert cycle is not None
        if not self._body_is_left:
            cycle.more_body = False
            cycle.wake()

    # ---- one request after the other

    def _answer(self, cycle: Cycle) -> None:
        self.answering = cycle
        task = self.loop.create_task(cycle.run_asgi(self.app))
        cycle.scope["task"] = task  # type: ignore[typeddict-unknown-key]
        self.tasks.add(task)

    def next_request(self) -> None:
        """Called by the cycle once its answer is complete."""
        self.server_state.total_requests += 1
        self.answering = None
        if self.transport.is_closing():
            return
        self._heard_at = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            self._answer(self.pipeline.pop()[0])  # type: ignore[arg-type]


def _parser_of_a_body(connection: Protocol) -> httptools.HttpRequestParser:
    """A parser that is where the body of the connection's present request begins.

    Java's client offers HTTP/2 with its first request, body and all; httptools ends such a request
    with its head.
    """
    lines = [name + b": " + value for name, value in connection.headers if name in _FRAMING]
    parser = httptools.HttpRequestParser(_AfterHead(connection))
    parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *lines, b"", b""]))
    return parser


class _AfterHead:
    """A connection's callbacks, for a parser that reads a head which the connection knows."""

    def __init__(self, connection: Protocol) -> None:
        self._connection = connection
        self._head_is_known = True
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete

    def on_message_begin(self) -> None:
        if not self._head_is_known:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._head_is_known:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_is_known:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._head_is_known:
            self._connection.on_headers_complete()
        self._head_is_known = False


_ASGI = {"version": "3.0", "spec_version": "2.3"}
_FRAMING = (b"content-length", b"transfer-encoding")
