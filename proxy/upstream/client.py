"""The HTTP client: for teachers, students and the control plane.

    response = await upstream.send("POST", url, headers, body)
    try:
        whole = await response.read()      # or chunk by chunk: response.next_chunk()
    finally:
        response.close()

A client of its own (see `connection` and `pool`), since HTTP is a good part of a request's cost.
Where the environment names a forward proxy for an address, aiohttp is used instead.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.http.asgi import Headers, header
from proxy.upstream.connection import Arriving
from proxy.upstream.decoding import decoded
from proxy.upstream.environment import forward_proxy
from proxy.upstream.errors import Unreachable, UpstreamError
from proxy.upstream.pool import Pool
from proxy.upstream.request import Origin, head_lines, target_of
from proxy.upstream.response import Response

if TYPE_CHECKING:
    from proxy.upstream.through_proxy import ThroughProxy

Body = bytes | AsyncIterator[bytes] | None

_SMALL = 64 * 1024  # bytes: a body up to this size is copied behind its head, for one write
_MAX_CACHED_TARGETS = 512  # by method and URL
_MAX_CACHED_URL_CHARS = 512  # a longer URL is parsed each time
_NO_LENGTH = ("GET", "HEAD", "OPTIONS", "TRACE")  # methods that state no length without a body


@dataclass(frozen=True, slots=True)
class _CachedTarget:
    """A method and a URL, ready to be sent to."""

    pool: Pool
    first_lines: bytes
    authorized: bool  # whether the URL holds a password, which wins over the headers
    proxy: str | None  # the forward proxy to take instead of the pool


class Upstream:
    """Pooled connections to all upstreams. `open` needs a running event loop."""

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        idle_s: float = 45.0,
        idle: int = 256,
    ) -> None:
        """`idle_s`, `idle`: how long idle connections of one origin are kept, and how many."""
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s  # between two reads, not of the whole answer
        self._opened = False
        self._idle_s = idle_s
        self._idle = idle
        self._pools: dict[Origin, Pool] = {}
        self._targets: dict[tuple[str, str], _CachedTarget] = {}
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
        UpstreamError, and ValueError on a header that would break out of its line. Nothing is
        sent twice: a request that fails may have been processed.
        """
        target = self._targets.get((method, url)) or self._cached(method, url)
        if target.authorized:
            headers = [pair for pair in headers if pair[0] != b"authorization"]
        if target.proxy is not None:
            response = await self._send_through(target.proxy, method, url, headers, body)
        elif body is None or isinstance(body, bytes):
            response = await self._send(target, method, headers, body)
        else:
            response = await self._upload(target, method, headers, body)
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

    async def _send(
        self, target: _CachedTarget, method: str, headers: Headers, body: bytes | None
    ) -> Arriving:
        head = head_lines(target.first_lines, headers)
        data: bytes | list[bytes]
        if body is None:
            data = head + (
                b"\r\n\r\n" if method in _NO_LENGTH else b"\r\ncontent-length: 0\r\n\r\n"
            )
        elif len(body) <= _SMALL:
            data = b"%b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        else:
            data = [b"%b\r\ncontent-length: %d\r\n\r\n" % (head, len(body)), body]
        connection = target.pool.take() or await target.pool.connect()
        response = Arriving(connection)
        connection.send(data, response, bodiless=method == "HEAD")
        await response.head()
        return response

    async def _upload(
        self, target: _CachedTarget, method: str, headers: Headers, body: AsyncIterator[bytes]
    ) -> Arriving:
        head = head_lines(target.first_lines, headers)
        stated = header(headers, b"content-length")
        length = None if stated is None else int(stated)
        end = b"\r\ntransfer-encoding: chunked\r\n\r\n" if length is None else b"\r\n\r\n"
        connection = target.pool.take() or await target.pool.connect()
        response = Arriving(connection)
        connection.send(head + end, response, bodiless=method == "HEAD")
        await connection.upload(response, body, length)
        await response.head()
        return response

    async def _send_through(
        self, proxy: str, method: str, url: str, headers: Headers, body: Body
    ) -> Response:
        if self._through_proxy is None:
            # a fifth of a second to import: only where it is needed
            from proxy.upstream.through_proxy import ThroughProxy  # noqa: PLC0415

            self._through_proxy = ThroughProxy(
                connect_timeout_s=self._connect_timeout_s,
                read_timeout_s=self._read_timeout_s,
                context=self._trust(),
            )
        return await self._through_proxy.send(method, url, headers, body, proxy=proxy)

    def _cached(self, method: str, url: str) -> _CachedTarget:
        """Raises Unreachable if the URL is not an address."""
        assert self._opened, "Upstream.open comes first"
        try:
            parsed = target_of(url)
        except ValueError:
            raise Unreachable from None
        pool = self._pools.get(parsed.origin)
        if pool is None:
            pool = self._pools[parsed.origin] = Pool(
                parsed.origin,
                connect_timeout_s=self._connect_timeout_s,
                read_timeout_s=self._read_timeout_s,
                idle_s=self._idle_s,
                idle=self._idle,
                trust=self._trust,
            )
        target = _CachedTarget(
            pool=pool,
            first_lines=parsed.first_lines(method),
            authorized=parsed.authorization is not None,
            proxy=forward_proxy(parsed.origin),
        )
        if len(url) <= _MAX_CACHED_URL_CHARS:
            if len(self._targets) >= _MAX_CACHED_TARGETS:
                self._targets.clear()
            self._targets[method, url] = target
        return target

    def _trust(self) -> ssl.SSLContext:
        """The trusted certificates: the system's, or those of SSL_CERT_FILE and SSL_CERT_DIR."""
        if self._context is None:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context
