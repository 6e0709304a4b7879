"""A client's connection: HTTP/1.1 to ASGI, on top of uvicorn's protocol for httptools.

`Protocol` is a connection, `Cycle` one request on it with its answer. What differs from uvicorn's:

- `scope["on_disconnect"]` takes a callback for when the client hangs up before its answer is
  complete, and `scope["task"]` is the task that answers it. Nobody has to wait in `receive` for
  that, so it needs no task of its own.
- Draining: a client that may send one more request is waited for during `LINGER_S`, and its answer
  says `connection: close`, since a request that meets a closing connection is lost.
- A client that shuts down writing alone gets its answers. One that is gone resets the connection
  when it gets bytes that come next in any case; they are written one by one, at growing intervals.
- Idle connections, clients that stop in the middle of a request and clients that do not read are
  found by one look at all connections per second, instead of a timer per request.
- It does less per request: one scan checks all header values of an answer, names are checked once
  and cached, the head of an answer waits for its body so that both are written in one go, and
  `receive` creates nothing unless it has to wait.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from proxy.http.asgi import Handler, Headers, Message, Scope
from proxy.http.errors import internal, not_http
from proxy.http.header_lines import (
    CONNECTION,
    ENCODING,
    FRAMING_PREFIXES,
    PREFIXES,
    VALUE_BYTES,
    prefix_of,
)
from proxy.http.kernel import has_unread, was_reset
from proxy.http.offered_upgrade import FRAMING, parser_of_a_body

HEAD_TIMEOUT_S = 30.0  # how long a request's head may take
BODY_BYTES_PER_S = 1024.0  # of a request's body, at least, once it has taken as long as a head may
HEAD_LIMIT = 64 * 1024  # bytes of a request line with its headers, or of what follows a body
PIPELINED = 16  # requests that wait for an earlier one's answer before no more are read
LINGER_S = 1.0  # how long a draining connection waits for one more request
# the same where nobody waits for the end: OpenAI's clients close idle connections after 5 s, and a
# request that meets a closing one is lost
PATIENT_LINGER_S = 6.0
STALL_S = 300.0  # how long a client may leave an answer unread
_RESET_S = 0.05  # after which a reset is looked for, and then each second
_STATUS_BEGINS = b"HTTP/1.1 "  # every status line
_MAX_ZEROS = 8  # before a chunk's size, of which parsers take 16 digits
_ASGI = {"version": "3.0", "spec_version": "2.3"}
_BODILESS = (204, 304)


class Protocol(HttpToolsProtocol):
    """One connection. `cycle` is the request that came last, `answering` the one being answered."""

    cycle: Cycle | None  # type: ignore[assignment]
    answering: Cycle | None = None
    draining = False
    ends_soon = False  # after the answers under way: it drains, or is half closed
    on_gone: Callable[[], None] | None = None  # called when the connection is no more
    on_refused: Callable[[int], None] | None = None  # with the status of what was no request
    idle: dict[Protocol, None] | None = None  # who waits for a further request, longest first
    head_timeout_s = HEAD_TIMEOUT_S
    body_bytes_per_s = BODY_BYTES_PER_S
    _head_at: float | None = None  # since when a head is waited for: the first, or one that began
    _looked_at = 0.0  # when `look_after` was called last
    _body_s = 0.0  # how long the present body has been coming, while we read
    _body_bytes = 0  # of it so far
    _head_bytes: int | None = None  # of a request whose headers are not complete; None: no such
    # bytes since the last piece of the body that were not part of it: trailers, say
    _beside_body = -1  # -1: the last bytes were part of it
    _body_is_left = False  # the parser takes a request that offers an upgrade to end with its head
    _broken = False  # not HTTP: nothing more is read
    half_closed = False  # the client sends nothing more, and may still read
    _probes = 0  # whether such a client is still there
    _probe_at = 0.0  # loop time of the next one
    _stalled_at: float | None = None  # since when the client leaves an answer unread
    _heard_at = 0.0  # when the client last sent something, or got the end of an answer

    # ---- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._heard_at = self._head_at = self._looked_at = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self._is_busy()
        self.parser = None  # type: ignore[assignment]
        self.pipeline.clear()
        self.flow.resume_writing()
        on_gone, self.on_gone = self.on_gone, None  # it refers to this: no work for the collector
        if on_gone is not None:
            on_gone()
        under_way, self.answering, self.cycle = self.answering, None, None
        if under_way is not None:
            under_way.lost()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Called when the client has closed, or shut down writing: whether to stay open for it."""
        if self.pipeline and self.cycle is not None and self.cycle.more_body:
            self.pipeline.popleft()  # it will never be whole
        waits = self.answering
        if waits is None or (waits is self.cycle and waits.more_body):
            return False
        self.half_closed = self.ends_soon = True
        self._head_bytes = self._head_at = None
        self._probe(self.loop.time())
        self.loop.call_later(_RESET_S, self._look_for_reset)
        return True

    def _probe(self, now: float) -> None:
        self._probes += 1
        self._probe_at = now + 2**self._probes / 2
        if self.answering is not None:
            self.answering.probe(self._probes)

    def _look_for_reset(self) -> None:
        """Ends a connection whose client is gone: nothing is read from it that would tell."""
        if not self.transport.is_closing() and was_reset(self.transport):
            self.transport.abort()

    def pause_writing(self) -> None:
        """Called when the client's buffer is full: `send` waits from now on."""
        self._stalled_at = self.loop.time()
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        """Called when the client has read on."""
        self._stalled_at = None
        self.flow.resume_writing()

    def look_after(self, now: float) -> None:
        """Closes the connection when its client has been idle, or in the way, for too long."""
        passed, self._looked_at = max(0.0, now - self._looked_at), now
        if self.half_closed:
            self._look_for_reset()
            if now >= self._probe_at:
                self._probe(now)
        if self._stalled_at is not None:
            if now - self._stalled_at > STALL_S:
                self.transport.abort()
        elif self._broken or self.flow.read_paused:
            pass  # nothing is read, so nothing is late
        elif self._head_at is not None and now - self._head_at > self.head_timeout_s:
            if self._head_bytes is None:  # not one byte
                self.transport.close()
            else:
                self._refuse(408, "The headers of the request took too long.")
        elif self._body_is_slow(passed):
            self._refuse(408, "The body of the request came too slowly.")
        elif now - self._heard_at > self.timeout_keep_alive and self._waits_for_client():
            if self.transport.get_write_buffer_size():
                self.transport.abort()  # `close` would wait for its reader
            else:
                self.transport.close()

    def _body_is_slow(self, passed: float) -> bool:
        """Whether the present body has come more slowly than it must; `passed`: since last asked.

        Time in which nothing is read, because an upstream is behind, does not count.
        """
        if self.cycle is None or not self.cycle.more_body or self.cycle is not self.answering:
            return False
        self._body_s += passed
        late_s = self._body_s - self.head_timeout_s
        return late_s > 0 and self._body_bytes < late_s * self.body_bytes_per_s

    def _waits_for_client(self) -> bool:
        if self.answering is None:
            return True
        # unless it is us who do not read: then its upload waits for the upstream
        sending = self.cycle is self.answering and self.cycle.more_body
        return sending and not self.flow.read_paused

    # ---- making room

    def _is_busy(self) -> None:
        if self.idle is not None:
            self.idle.pop(self, None)

    def _sends_on(self) -> bool:
        """Whether the body of the request that was answered is still coming."""
        return self._broken or (self.cycle is not None and self.cycle.more_body)

    def give_way(self) -> bool:
        """Closes this idle connection for the sake of others.

        False if a request has come on it, or its client has not taken all of its last answer.
        """
        if has_unread(self.transport) or self.transport.get_write_buffer_size():
            return False
        self._is_busy()
        self.transport.close()
        return True

    # ---- draining

    def shutdown(self) -> None:
        """From now on each answer says that the connection closes after it."""
        if not self.draining:
            self.draining = self.ends_soon = True
            self._heard_at = self.loop.time()

    def linger(self, now: float, linger_s: float = LINGER_S) -> None:
        """Closes a draining connection that has nothing under way for so long."""
        idle = self.answering is None and self._head_bytes is None
        if idle and now - self._heard_at >= linger_s and not has_unread(self.transport):
            self.transport.close()

    # ---- what comes in

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        self._heard_at = self.loop.time()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # not offered: the request is answered as any other, and HTTP continues
            if self._body_is_left:
                self._body_is_left = False
                try:
                    self.parser = parser_of_a_body(self, self.headers)
                except httptools.HttpParserError:  # an unknown transfer-encoding, say
                    self._refuse(400, "Invalid HTTP request received.")
                    return
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
        """Answers bytes that are not a request, unless an answer is under way, which ends first."""
        if self.on_refused is not None:
            self.on_refused(status)
        self._broken = True
        self._head_bytes = None
        under_way = self.answering
        if under_way is not None and (under_way is not self.cycle or not under_way.more_body):
            under_way.close_after = True
            self.pipeline.clear()
            return
        if under_way is None or not under_way.response_started:
            self.transport.write(not_http(status, message).on_the_wire())
        self.transport.close()

    def on_message_begin(self) -> None:
        self._is_busy()
        self._head_bytes = 0
        self._head_at = self._heard_at
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_bytes is None:
            return  # a trailer: only headers count (RFC 9110, section 6.5.1)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._head_bytes = self._head_at = None
        self._beside_body = -1
        self._body_s, self._body_bytes = 0.0, 0
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
            self._body_is_left = any(name in FRAMING for name, _ in self.headers)
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
                self.flow.pause_reading()  # a client that hangs up is not noticed from now on
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        assert cycle is not None
        self._beside_body = -1
        self._body_bytes += len(body)
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
        elif self.half_closed:
            self.transport.close()
        elif self.idle is not None and self._head_bytes is None and not self._sends_on():
            self.idle[self] = None


class Cycle(RequestResponseCycle):
    """One request and its answer. Attributes that most requests never change are the class's."""

    disconnected = False
    waiting_for_100_continue = False
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = 0
    bodiless = False  # a length says what a body would have had
    close_after = False  # the connection closes after this answer, whatever its headers say
    _head: bytes | None = None  # of an answer with a length, until its body comes
    _line_begun = 0  # bytes of the status line that are written
    _has_news = False  # whether `receive` has something to give
    _arrived: asyncio.Event | None = None  # for a wait in `receive`
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
        """Has the application answer, and completes or breaks off an answer that it leaves open."""
        try:
            await app(self.scope, self.receive, self.send)  # type: ignore[arg-type]
        except asyncio.CancelledError:
            self._break_off()
            raise
        except BaseException as error:
            self.logger.error("Exception in ASGI application\n", exc_info=error)
            await self._end_unfinished()
        else:
            if not self.response_complete and not self.disconnected:
                started = "completing" if self.response_started else "starting"
                self.logger.error(f"ASGI callable returned without {started} response.")
                await self._end_unfinished()
        finally:
            self.connection.tasks.discard(self.scope["task"])  # type: ignore[typeddict-item]
            # it holds on to this: no work for the garbage collector
            del self.scope["on_disconnect"]  # type: ignore[typeddict-item]

    async def _end_unfinished(self) -> None:
        if self.response_started:
            self._break_off()
        else:
            self.keep_alive = False
            await internal().send(self.send)

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

    def probe(self, number: int) -> None:
        """Writes a byte that comes next in any case: a client that is gone resets the connection.

        Of the status line, or a leading zero of the next chunk's size (RFC 9112, section 7.1). An
        answer that has a length, or none, goes on by itself.
        """
        if not self.response_started:
            self.waiting_for_100_continue = False
            self.transport.write(_STATUS_BEGINS[self._line_begun :][:1])
            self._line_begun = min(self._line_begun + 1, len(_STATUS_BEGINS))
        elif self.chunked_encoding and not self.bodiless and number <= _MAX_ZEROS:
            self.transport.write(b"0")

    # ---- the request

    def wake(self) -> None:
        """Called when there is something new for `receive`."""
        self._has_news = True
        if self._arrived is not None:
            self._arrived.set()

    async def receive(self) -> Message:  # type: ignore[override]
        """The next part of the body; after the last one, that the client is gone."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if self.flow.read_paused and self.connection.cycle is self:
            self.flow.resume_reading()
        while not self._has_news and not self.disconnected and not self.response_complete:
            if self._arrived is None:
                self._arrived = asyncio.Event()
            self._arrived.clear()
            await self._arrived.wait()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        self._has_news = False
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
            self._continue(message.get("body", b""), more=more)
            if more and self.flow.write_paused:  # now, before the caller fetches the next part
                await self.flow.drain()

    def _start(self, status: int, headers: Headers) -> None:
        connection = self.connection
        if connection.ends_soon and not connection.pipeline:
            self.keep_alive = False
        lines, says_close = [], False
        for name, value in headers:
            prefix = PREFIXES.get(name) or prefix_of(name)
            lines.append(prefix + value)
            if prefix in FRAMING_PREFIXES:
                if prefix is CONNECTION or prefix == CONNECTION:
                    says_close |= b"close" in [t.strip().lower() for t in value.split(b",")]
                elif prefix == ENCODING:
                    self.chunked_encoding = value.lower() == b"chunked" or self.chunked_encoding
                elif self.chunked_encoding is None:
                    self.chunked_encoding = False
                    self.expected_content_length = int(value)
        if says_close:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close")
        self.bodiless = status in _BODILESS or self.scope["method"] == "HEAD"
        if self._needs_chunks():
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked")
        joined = b"\r\n".join(lines)
        # without the bytes that a value may have, only our own line ends are left
        if joined.translate(None, VALUE_BYTES) != b"\r\n" * (len(lines) - 1):
            raise RuntimeError("Invalid HTTP header value.")
        self.response_started = True
        self.waiting_for_100_continue = False
        line = STATUS_LINE[status][self._line_begun :]
        head = line + joined + (b"\r\n\r\n" if lines else b"\r\n")
        if self.chunked_encoding is False:
            self._head = head
        else:
            self.transport.write(head)

    def _needs_chunks(self) -> bool:
        """Whether an answer without a length is chunked.

        To HTTP/1.0 it ends with its connection (RFC 9112, section 6.1).
        """
        ours = self.chunked_encoding is None and not self.bodiless
        return ours and self.scope["http_version"] != "1.0"

    def _continue(self, body: bytes, *, more: bool) -> None:
        if self.bodiless:
            self.expected_content_length = 0
            body = b""
        elif self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        elif self.chunked_encoding is False:
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
