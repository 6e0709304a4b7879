"""The one place that speaks HTTP to others: teachers, students, the control plane.

    response = await upstream.send("POST", url, headers, body)
    try:
        whole = await response.read()      # or chunk by chunk: response.next_chunk()
    finally:
        response.close()

A client of its own (see `connection` and `pool`), since it is a good part of what a request costs.
Where the environment names a forward proxy for an address, aiohttp goes there instead.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.http.asgi import Headers, header
from proxy.upstream.arriving import Arriving
from proxy.upstream.decoding import decoded
from proxy.upstream.environment import forward_proxy
from proxy.upstream.errors import Broke, Slow, Unreachable, UpstreamError
from proxy.upstream.pool import Pool
from proxy.upstream.request import Origin, head_lines, target_of
from proxy.upstream.response import Response

if TYPE_CHECKING:
    from proxy.upstream.through_proxy import ThroughProxy

__all__ = ["Body", "Broke", "Response", "Slow", "Unreachable", "Upstream", "UpstreamError"]

Body = bytes | AsyncIterator[bytes] | None

# A connection from the pool that its other end is just closing fails within a round trip. What
# fails later may have been worked on, and is not sent twice.
_STALE_WITHIN_S = 1.0
_SMALL = 64 * 1024  # a body that is copied behind its head rather than written beside it
_WAYS = 512  # URLs that are kept in mind, each of at most so many characters
_LENGTH_OF_A_WAY = 512
_NO_LENGTH = ("GET", "HEAD", "OPTIONS", "TRACE")  # without a body they say nothing of its length


@dataclass(frozen=True, slots=True)
class _Way:
    """How a method and a URL are asked."""

    pool: Pool
    first_lines: bytes
    authorized: bool  # whether the URL holds a password, which wins over the headers
    proxy: str | None  # the forward proxy to take instead of the pool


class Upstream:
    """Pooled connections to every upstream. `open` needs a running event loop."""

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        idle_s: float = 45.0,
        idle: int = 256,
    ) -> None:
        """`idle_s`, `idle`: how long connections to one origin wait for use, and how many."""
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s  # between two reads: an answer may take long
        self._opened = False
        self._idle_s = idle_s
        self._idle = idle
        self._pools: dict[Origin, Pool] = {}
        self._ways: dict[tuple[str, str], _Way] = {}
        self._context: ssl.SSLContext | None = None
        self._through_proxy: ThroughProxy | None = None

    async def open(self) -> None:
        self._opened = True

    async def close(self) -> None:
        """Closes idle connections; one in use is closed when its answer has ended."""
        for pool in self._pools.values():
            pool.close()
        if self._through_proxy is not None:
            await self._through_proxy.close()
        await asyncio.sleep(0)  # transports close a turn later

    async def send(
        self, method: str, url: str, headers: Headers, body: Body, *, decode: bool = True
    ) -> Response:
        """Sends a request and returns its answer once the headers are there.

        `headers`: names and values as they go over the wire, without `host`; the length of a
        body in bytes is added, an iterator's may be stated as `content-length`. `decode`: a body
        in gzip or deflate is read as what it holds. Redirects are answers like others. Raises
        UpstreamError, and ValueError on a header that would break out of its line.
        """
        way = self._ways.get((method, url)) or self._way(method, url)
        if way.authorized:
            headers = [pair for pair in headers if pair[0] != b"authorization"]
        if way.proxy is not None:
            response = await self._take_proxy(way.proxy, method, url, headers, body)
        elif body is None or isinstance(body, bytes):
            response = await self._send(way, method, headers, body)
        else:
            response = await self._upload(way, method, headers, body)
        return decoded(response) if decode else response

    async def answers(self, url: str, *, within_s: float) -> bool:
        """Whether a GET of this address succeeds within the time limit."""
        try:
            async with asyncio.timeout(within_s):
                response = await self.send("GET", url, [], None)
        except (UpstreamError, TimeoutError):
            return False
        response.close()
        return response.status < 400

    async def _send(self, way: _Way, method: str, headers: Headers, body: bytes | None) -> Arriving:
        head = head_lines(way.first_lines, headers)
        data: bytes | list[bytes]
        if body is None:
            data = head + (
                b"\r\n\r\n" if method in _NO_LENGTH else b"\r\ncontent-length: 0\r\n\r\n"
            )
        elif len(body) <= _SMALL:
            data = b"%b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        else:
            data = [b"%b\r\ncontent-length: %d\r\n\r\n" % (head, len(body)), body]
        connection = way.pool.take() or await way.pool.connect()
        response = Arriving(connection)
        connection.ask(data, response, bodiless=method == "HEAD")
        try:
            await response.head()
        except Broke:
            if response.unread or connection.loop.time() - connection.heard > _STALE_WITHIN_S:
                raise
        else:
            return response
        connection = await way.pool.connect()
        response = Arriving(connection)
        connection.ask(data, response, bodiless=method == "HEAD")
        await response.head()
        return response

    async def _upload(
        self, way: _Way, method: str, headers: Headers, body: AsyncIterator[bytes]
    ) -> Arriving:
        head = head_lines(way.first_lines, headers)
        stated = header(headers, b"content-length")
        length = None if stated is None else int(stated)
        end = b"\r\ntransfer-encoding: chunked\r\n\r\n" if length is None else b"\r\n\r\n"
        connection = way.pool.take() or await way.pool.connect()
        response = Arriving(connection)
        connection.ask(head + end, response, bodiless=method == "HEAD")
        await connection.upload(response, body, length)
        await response.head()
        return response

    async def _take_proxy(
        self, proxy: str, method: str, url: str, headers: Headers, body: Body
    ) -> Response:
        if self._through_proxy is None:
            # a fifth of a second to import: only for who needs it
            from proxy.upstream.through_proxy import ThroughProxy  # noqa: PLC0415

            self._through_proxy = ThroughProxy(
                connect_timeout_s=self._connect_timeout_s,
                read_timeout_s=self._read_timeout_s,
                context=self._trust(),
            )
        return await self._through_proxy.send(method, url, headers, body, proxy=proxy)

    def _way(self, method: str, url: str) -> _Way:
        """Raises Unreachable for what is no address."""
        assert self._opened, "Upstream.open comes first"
        try:
            target = target_of(url)
        except ValueError:
            raise Unreachable from None
        pool = self._pools.get(target.origin)
        if pool is None:
            pool = self._pools[target.origin] = Pool(
                target.origin,
                connect_timeout_s=self._connect_timeout_s,
                read_timeout_s=self._read_timeout_s,
                idle_s=self._idle_s,
                idle=self._idle,
                trust=self._trust,
            )
        way = _Way(
            pool=pool,
            first_lines=target.first_lines(method),
            authorized=target.authorization is not None,
            proxy=forward_proxy(target.origin),
        )
        if len(url) <= _LENGTH_OF_A_WAY:
            if len(self._ways) >= _WAYS:
                self._ways.clear()
            self._ways[method, url] = way
        return way

    def _trust(self) -> ssl.SSLContext:
        """The certificates that count: the system's, or where SSL_CERT_FILE and _DIR point."""
        if self._context is None:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context
