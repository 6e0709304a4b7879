"""One request and its answer, as ASGI sees them: `receive` and `send` on uvicorn's cycle.

It is on the way of every request, so it does less than uvicorn's own: one scan checks all header
values of an answer, names are checked once and remembered, the head of an answer waits for its body
so that both are written in one go, and nothing is created for `receive` unless it has to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HEADER_RE, STATUS_LINE, RequestResponseCycle

from proxy.http.asgi import Handler, Headers, Message, Scope

if TYPE_CHECKING:
    from proxy.http.protocol import Protocol

_KNOWN_NAMES = 1_000  # an upstream that invents names must not fill the memory
# what a header's value may have: anything but control characters, a tab excepted
_VALUE = bytes([9, *range(32, 127), *range(128, 256)])
_prefixes: dict[bytes, bytes] = {}  # a header's name as it came → as it is written


def _prefix(name: bytes) -> bytes:
    """`name: ` in lower case. Raises RuntimeError when it is no name."""
    if not name or HEADER_RE.search(name):
        raise RuntimeError("Invalid HTTP header name.")
    prefix = name.lower() + b": "
    if len(_prefixes) < _KNOWN_NAMES:
        _prefixes[name] = prefix
    return prefix


_LENGTH, _ENCODING, _CONNECTION = map(
    _prefix, (b"content-length", b"transfer-encoding", b"connection")
)
_FRAMING = frozenset({_LENGTH, _ENCODING, _CONNECTION})


class Cycle(RequestResponseCycle):
    """One request. What most of them never change stands on the class."""

    disconnected = False
    waiting_for_100_continue = False
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = 0
    close_after = False  # the connection closes after this answer, whatever its headers say
    _head: bytes | None = None  # of an answer with a length, until its body comes
    _news = False  # whether `receive` has something to give
    _arrived: asyncio.Event | None = None  # for those who wait in `receive`
    _callback: Callable[[], None] | None = None

    def __init__(self, connection: Protocol, scope: Scope, *, keep_alive: bool) -> None:
        self.connection = connection
        self.scope = scope  # type: ignore[assignment]
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.keep_alive = keep_alive
        self.body = b""  # type: ignore[assignment]
        scope["on_disconnect"] = self.on_disconnect

    async def run_asgi(self, app: Handler) -> None:  # type: ignore[override]
        """Has the application answer, and makes up for what it leaves open."""
        try:
            await app(self.scope, self.receive, self.send)  # type: ignore[arg-type]
        except asyncio.CancelledError:
            self._break_off()
            raise
        except BaseException as error:
            self.logger.error("Exception in ASGI application\n", exc_info=error)
            await self._make_up()
        else:
            if not self.response_complete and not self.disconnected:
                started = "completing" if self.response_started else "starting"
                self.logger.error(f"ASGI callable returned without {started} response.")
                await self._make_up()
        finally:
            self.connection.tasks.discard(self.scope["task"])  # type: ignore[typeddict-item]
            # it holds on to this: no work for the garbage collector
            del self.scope["on_disconnect"]  # type: ignore[typeddict-item]

    async def _make_up(self) -> None:
        if self.response_started:
            self._break_off()
        else:
            await self.send_500_response()

    def _break_off(self) -> None:
        """Closes the connection, so that the client sees that its answer is not complete."""
        if not self.response_complete and not self.disconnected:
            if self._head is not None:
                self.transport.write(self._head)
            self.transport.close()

    # ---- the client

    def on_disconnect(self, callback: Callable[[], None] | None) -> None:
        """Has `callback` called when the client hangs up before its answer is complete.

        Once at most; None takes it back. Soon, when the client is gone already.
        """
        self._callback = callback
        if callback is not None and self.disconnected:
            self.connection.loop.call_soon(self._tell)

    def lost(self) -> None:
        """Called by the connection when it is gone before the answer is complete."""
        self.disconnected = True
        self.wake()
        self._tell()

    def _tell(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    # ---- the request

    def wake(self) -> None:
        """Called when there is something new for `receive`."""
        self._news = True
        if self._arrived is not None:
            self._arrived.set()

    async def receive(self) -> Message:  # type: ignore[override]
        """The next part of the body; when there is none any more, that the client is gone."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if self.flow.read_paused and self.connection.cycle is self:
            self.flow.resume_reading()
        while not self._news and not self.disconnected and not self.response_complete:
            if self._arrived is None:
                self._arrived = asyncio.Event()
            self._arrived.clear()
            await self._arrived.wait()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        self._news = False
        body, self.body = self.body, b""  # type: ignore[assignment]
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    # ---- the answer

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """Takes a part of the answer; waits while the client is behind with reading."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.response_started:
            if kind != "http.response.start":
                raise RuntimeError(f"Expected 'http.response.start', but got '{kind}'.")
            self._start(message["status"], message.get("headers", ()))
        elif kind != "http.response.body" or self.response_complete:
            raise RuntimeError(f"Unexpected ASGI message '{kind}'.")
        else:
            more = message.get("more_body", False)
            self._go_on(message.get("body", b""), more=more)
            if more and self.flow.write_paused:  # now: who waits later has the next part in hand
                await self.flow.drain()

    def _start(self, status: int, headers: Headers) -> None:
        connection = self.connection
        if connection.draining and not connection.pipeline:
            self.keep_alive = False
        lines = []
        says_close = False
        for name, value in headers:
            prefix = _prefixes.get(name) or _prefix(name)
            lines.append(prefix + value)
            if prefix in _FRAMING:
                if prefix is _CONNECTION or prefix == _CONNECTION:
                    says_close |= b"close" in [t.strip().lower() for t in value.split(b",")]
                elif prefix == _ENCODING:
                    self.chunked_encoding = value.lower() == b"chunked" or self.chunked_encoding
                elif self.chunked_encoding is None:
                    self.chunked_encoding = False
                    self.expected_content_length = int(value)
        if says_close:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close")
        has_body = status not in (204, 304) and self.scope["method"] != "HEAD"
        if self.chunked_encoding is None and has_body:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked")
        joined = b"\r\n".join(lines)
        # what is left of the values when all that may be in one is taken out are our own line ends
        if joined.translate(None, _VALUE) != b"\r\n" * (len(lines) - 1):
            raise RuntimeError("Invalid HTTP header value.")
        self.response_started = True
        self.waiting_for_100_continue = False
        head = STATUS_LINE[status] + joined + (b"\r\n\r\n" if lines else b"\r\n")
        if self.chunked_encoding is False:
            self._head = head
        else:
            self.transport.write(head)

    def _go_on(self, body: bytes, *, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            body = b""
        elif self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("Response content longer than Content-Length")
        if self._head is not None:
            body, self._head = self._head + body, None
        if body:
            self.transport.write(body)
        if not more:
            if self.expected_content_length > 0:
                raise RuntimeError("Response content shorter than Content-Length")
            self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self._callback = None
        self.wake()
        if self.close_after or not self.keep_alive:
            self.transport.close()
        self.connection.next_request()
