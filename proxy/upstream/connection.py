"""A connection to an upstream, and an answer on its way: HTTP/1.1 (RFC 9112), one at a time.

    idle ──send──▶ sent ──head──▶ begun ──end of the message──▶ idle
                    └──────────────┴──broken, silent, closed──▶ gone

The connection fills an answer, and one reader empties it. The next request may be sent when the
last answer has ended, whether or not it has been read by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from proxy.http.asgi import Headers, header
from proxy.upstream.errors import Broke, Slow, UpstreamError
from proxy.upstream.response import (
    MAX_BODY_BYTES,
    MAX_GATHERED_BYTES,
    MIN_UNKNOWN_STATUS,
    Response,
)

_MAX_UNREAD = 64 * 1024  # bytes of a body that wait for a slow reader; then reading pauses
_MAX_HEAD = 256 * 1024  # bytes of a head, or of anything else that is not a body
_FRESH_S = 0.02  # so soon after an answer a proven connection is not asked of the kernel
_MIN_PROVEN = 2  # answers on a connection whose other end is known to keep it open
_NOT_HTTP = (HttpParserError, HttpParserUpgrade)


class Connection(asyncio.Protocol):
    """One connection. It tells its pool when it may be used again, and when it is gone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        read_timeout_s: float,
        *,
        on_idle: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        """`on_idle`: called when an answer has ended and the connection may be used again.

        `on_lost`: called when it is gone, or just going; maybe several times.
        """
        self.loop = loop
        self.heard = 0.0  # loop time of the last byte, or of the request when there was none yet
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._read_timeout_s = read_timeout_s
        self._time = loop.time
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._parser: HttpResponseParser
        self._response: Arriving | None = None
        self._headers: Headers = []  # of the head that is being read
        self._bodiless = False  # the answer to HEAD: whatever its headers say
        self._interim = False  # in an answer that announces another one (1xx)
        self._ended = False
        self._reusable = False
        self._uploading = False
        self._paused = False  # reading, for a slow reader
        self._full = False  # writing, for a slow upstream
        self._unsent = 0
        self._taken = 0.0  # loop time when the upstream had taken most of a large request
        self._lost = False
        self._idle_since = 0.0  # time.monotonic() when the last answer ended
        self._answers = 0
        self._readable: select.poll | None = None  # made when the connection is used again

    # ---- a request

    def send(self, data: bytes | list[bytes], response: Arriving, *, bodiless: bool) -> None:
        """Sends a request, or its head; the answer comes into `response`."""
        self._response = response
        self._headers = response.headers
        self._bodiless = bodiless
        self._ended = False
        self.heard = self._time()
        if self._lost:  # since it was made or taken
            self._end(Broke())
            return
        if self._timer is None:
            self._timer = self.loop.call_later(self._read_timeout_s, self._check_silence)
        if isinstance(data, bytes):
            self._transport.write(data)
        else:
            for part in data:  # not writelines: asyncio's own loop does not pause us there (3.13)
                self._transport.write(part)
            self._unsent = self._transport.get_write_buffer_size()

    async def upload(
        self, response: Arriving, body: AsyncIterator[bytes], length: int | None
    ) -> None:
        """Sends the body after its head: in chunks, or `length` bytes without them.

        It stops when an answer comes before its end. Raises what the body raises, and ValueError
        when it is not of this length.
        """
        self._uploading = True
        left = 0 if length is None else length
        try:
            async for piece in body:
                if response.begun or response.connection is None:
                    return  # still uploading: the connection is closed after the answer
                if length is None and piece:
                    self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                else:
                    left -= len(piece)
                    if left < 0:
                        raise ValueError("a body is longer than its content-length")
                    self._transport.write(piece)
                self.heard = self._time()
                while self._full and not response.begun and response.connection is not None:
                    await response.news(self)
            if left:
                raise ValueError("a body is shorter than its content-length")
            if response.connection is not None:
                if length is None:
                    self._transport.write(b"0\r\n\r\n")
                self._uploading = False
                self.heard = self._time()
        except BaseException:
            response.close()
            raise
        finally:
            if isinstance(body, AsyncGenerator):
                await body.aclose()

    def read_on(self) -> None:
        """Reads again after a pause for the reader."""
        if self._paused:
            self._paused = False
            self.heard = self._time()
            self._transport.resume_reading()

    def drop(self, error: UpstreamError) -> None:
        """Ends the answer under way, if any, and closes the connection."""
        self._end(error)
        self._transport.abort()

    def stale(self, *, keeps_open: bool) -> bool:
        """Whether an idle connection was closed by its other end, or holds unrequested bytes.

        Asks the kernel, since the event loop may not have read them yet. The system call costs a
        busy proxy up to a tenth of its time, so not where `keeps_open`, the other end being known
        to keep connections open after an answer, and this connection was used again before and
        answered within _FRESH_S.
        """
        if self._lost or self._transport.is_closing():
            return True
        proven = keeps_open and self._answers >= _MIN_PROVEN
        if proven and self.idle_s < _FRESH_S:
            return False
        if self._readable is None:
            self._readable = select.poll()
            try:
                plain = self._transport.get_extra_info("socket")
                self._readable.register(plain.fileno(), select.POLLIN)
            except (OSError, ValueError):
                return True
        return bool(self._readable.poll(0))

    @property
    def idle_s(self) -> float:
        """Seconds since its last answer ended."""
        return time.monotonic() - self._idle_since

    def close(self) -> None:
        """Closes an idle connection, with TLS's own shutdown."""
        self._transport.close()

    # ---- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not derived from it
        self._parser = HttpResponseParser(self)
        # some servers end lines and sizes that way; it cannot hide anything
        self._parser.set_dangerous_leniencies(
            lenient_chunked_length=True,  # the length is dropped then
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        limit = getattr(transport, "set_read_buffer_limits", None)
        if limit is not None:
            # TLS decrypts ahead of a paused reader, and at the end of TCP uvloop drops those bytes,
            # unless it stops at once: then the end is not seen before the rest.
            limit(high=1, low=0)
        plain = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:  # no request was sent
            self._on_lost(self)
            self._transport.abort()
            return
        self.heard = self._time()
        response.unread += len(data)
        try:
            self._parser.feed_data(data)
        except _NOT_HTTP:
            if not self._ended:
                self.drop(Broke())
                return
            self._reusable = False  # a whole answer, and then something else
        if self._ended:
            self._finish()
            return
        unread = response.unread
        if response.whole:
            if unread > MAX_GATHERED_BYTES:
                response.has_much(self)
        elif not response.chunks:
            if unread > _MAX_HEAD:
                self.drop(Broke())
            elif response.begun:
                response.wake()
        else:
            if unread > _MAX_UNREAD and not self._paused:
                self._paused = True
                self._transport.pause_reading()
            response.wake()

    def eof_received(self) -> None:
        if self._response is None:
            self._on_lost(self)  # at once: it takes a turn until it is closed

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        response = self._response
        if response is not None:
            whole = exc is None and response.begun and _until_close(response.headers)
            self._end(None if whole else Broke())
        self._on_lost(self)
        del self._parser  # which holds on to this

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._taken = self._time()
        if self._uploading and self._response is not None:
            self._response.wake()

    # ---- called by the parser

    def on_message_begin(self) -> None:
        if self._ended:
            self._reusable = False  # more than one answer

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        response = self._response
        assert response is not None
        if self._ended:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._headers.clear()
            self._interim = True
            return
        if status >= MIN_UNKNOWN_STATUS:
            raise ValueError("not a status")  # which the parser turns into its own error
        if header(response.headers, b"transfer-encoding") is not None:
            _drop_length(response.headers)
        response.status = status
        response.begun = True
        self._headers = []  # for trailers, which are not read
        if self._bodiless:  # the parser would wait for an announced body in vain
            self._ended = True
            self._reusable = False

    def on_body(self, data: bytes) -> None:
        if not self._ended:
            self._response.chunks.append(data)  # type: ignore[union-attr]

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        elif not self._ended:
            self._ended = True
            self._reusable = self._parser.should_keep_alive()

    # ---- the end of an answer

    def _finish(self) -> None:
        """The answer is whole."""
        self._end(None)
        if self._paused:
            self.read_on()
        if self._reusable and not self._uploading and not self._transport.get_write_buffer_size():
            self._idle_since = time.monotonic()
            self._answers += 1
            self._on_idle(self)
        else:
            self._transport.abort()

    def _end(self, error: UpstreamError | None) -> None:
        response = self._response
        if response is not None:
            self._response = None
            response.connection = None
            response.error = error
            response.wake()

    def _check_silence(self) -> None:
        """Ends an answer that is silent for too long. One timer serves many requests."""
        self._timer = None
        if self._response is None:
            return  # armed again with the next request
        left = max(self.heard, self._taken) + self._read_timeout_s - self._time()
        if self._paused or (self._uploading and not self._full):
            left = self._read_timeout_s  # the upstream is not the one that is waited for
        elif left <= 0 and self._unsent > (unsent := self._transport.get_write_buffer_size()) > 0:
            self._unsent = unsent  # it takes the request, slowly
            left = self._read_timeout_s
        if left > 0:
            self._timer = self.loop.call_later(left, self._check_silence)
        else:
            self.drop(Slow())


class Arriving(Response):
    """An answer of which more may come."""

    __slots__ = ("_gathers", "_waiter", "begun", "chunks", "connection", "error", "unread", "whole")

    def __init__(self, connection: Connection) -> None:
        self.status = 0  # for now
        self.headers: Headers = []
        self.connection: Connection | None = connection  # None: nothing more will come
        self.begun = False  # whether the status and the headers are here
        self.chunks: list[bytes] = []
        self.unread = 0  # bytes off the wire since something was last taken
        self.whole = False  # whether the reader waits for the end
        self.error: UpstreamError | None = None
        self._gathers = False  # waits for the end of an answer that is not large
        self._waiter: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Waits for the status and the headers. Raises Slow or Broke."""
        try:
            while not self.begun:
                if self.connection is None:
                    raise self.error or Broke
                await self.news(self.connection)
        except asyncio.CancelledError:
            self.close()
            raise

    @property
    def ended(self) -> bool:
        return self.connection is None

    async def next_chunk(self) -> bytes:
        try:
            while not self.chunks:
                if self.connection is None:
                    if self.error is not None:
                        raise self.error
                    return b""
                await self.news(self.connection)
        except asyncio.CancelledError:
            self.close()
            raise
        return self._take()

    async def gather(self, seconds: float) -> bool:
        connection = self.connection
        if connection is None:
            return True
        self.whole = self._gathers = True
        connection.read_on()
        timer = connection.loop.call_later(seconds, self._stop_gathering)
        try:
            while self.connection is not None and self.whole:
                await self.news(connection)
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            timer.cancel()
            self._gathers = False
        return self.connection is None

    def _stop_gathering(self) -> None:
        self.whole = self._gathers = False
        self.wake()

    def has_much(self, connection: Connection) -> None:
        """More has come than is waited for to the end without need."""
        if self._gathers:
            self._stop_gathering()
        elif self.unread > MAX_BODY_BYTES:
            connection.drop(Broke())

    async def read(self) -> bytes:
        if self.connection is not None:
            self.whole = True
            self.connection.read_on()
            try:
                while self.connection is not None:
                    await self.news(self.connection)
            except asyncio.CancelledError:
                self.close()
                raise
        if self.error is not None:
            raise self.error
        return self._take()

    def close(self) -> None:
        if self.connection is not None:
            self.connection.drop(Broke())

    def news(self, connection: Connection) -> asyncio.Future[None]:
        """A future that ends when the connection has something new.

        A reader that is cancelled while waiting for it closes this answer, as nobody else reads it.
        """
        self._waiter = waiter = connection.loop.create_future()
        return waiter

    def wake(self) -> None:
        """Ends a wait."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _take(self) -> bytes:
        chunks = self.chunks
        taken = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.unread = 0
        if self.connection is not None:
            self.connection.read_on()
        return taken


def _drop_length(headers: Headers) -> None:
    """Drops a length beside a transfer coding, which overrides it (RFC 9112, section 6.3)."""
    headers[:] = [pair for pair in headers if pair[0] != b"content-length"]


def _until_close(headers: Headers) -> bool:
    """Whether the body of an answer that has one ends with its connection (RFC 9112, 6.3)."""
    coding = header(headers, b"transfer-encoding")
    if coding is not None:
        return not coding.strip().lower().endswith(b"chunked")
    return header(headers, b"content-length") is None
