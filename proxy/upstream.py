"""The one place that speaks HTTP to others: teachers, students, the control plane.

A small seam around aiohttp, so that another client can take its place. Nothing else imports it.

UpstreamError
├── Unreachable   no connection could be made; nothing was sent
├── Slow          a connection or an answer took longer than its time limit
└── Broke         the connection ended before the answer did
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator

import aiohttp
from yarl import URL

from proxy.asgi import Header
from proxy.headers import Pairs

Body = bytes | AsyncIterator[bytes] | None

# A connection from the pool that its other end is just closing fails within a round trip. What
# fails later may have been worked on, and is not sent twice.
_STALE_WITHIN_S = 1.0
_LARGE = 1024 * 1024  # aiohttp wants bodies over this size as a file
_OWN_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class UpstreamError(Exception):
    """An upstream did not give a whole answer."""


class Unreachable(UpstreamError):
    """No connection could be made."""


class Slow(UpstreamError):
    """An upstream was silent for too long."""


class Broke(UpstreamError):
    """An upstream's connection ended before its answer did."""


class Response:
    """An upstream's answer: the status and the headers now, the body when it is asked for."""

    __slots__ = ("_inner", "headers", "status")

    def __init__(self, inner: aiohttp.ClientResponse) -> None:
        self._inner = inner
        self.status = inner.status
        self.headers: tuple[Header, ...] = inner.raw_headers

    @property
    def content_type(self) -> str:
        """The media type in lower case with its parameters, `""` when none is given."""
        return self._inner.headers.get("content-type", "").lower()

    async def read(self) -> bytes:
        """The whole body. Raises Slow or Broke."""
        try:
            return await self._inner.read()
        except TimeoutError:
            raise Slow from None
        except aiohttp.ClientError:
            raise Broke from None

    async def next_chunk(self) -> bytes:
        """What has come since the last call, at least one byte; empty at the end of the body.

        Raises Slow or Broke.
        """
        try:
            return await self._inner.content.readany()
        except TimeoutError:
            raise Slow from None
        except aiohttp.ClientError:
            raise Broke from None

    def close(self) -> None:
        """Stops reading: a connection with more to come is closed, another one is kept."""
        self._inner.close()


class Upstream:
    """Pooled connections to every upstream. `open` needs a running event loop."""

    def __init__(self, *, connect_timeout_s: float, read_timeout_s: float) -> None:
        # read: between two reads, so a long answer may take as long as it likes
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=connect_timeout_s, sock_read=read_timeout_s
        )
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            skip_auto_headers=_OWN_HEADERS,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self, method: str, url: str, headers: Pairs, body: Body, *, decode: bool = True
    ) -> Response:
        """Sends a request and returns its answer once the headers are there.

        `decode`: a compressed body is read as what it holds. Redirects are answers like others.
        Raises UpstreamError.
        """
        assert self._session is not None, "Upstream.open comes first"
        if isinstance(body, bytes):
            headers = [*headers, ("content-length", str(len(body)))]
        began = time.monotonic()
        retry = isinstance(body, bytes)
        while True:
            try:
                return Response(
                    await self._session.request(
                        method,
                        URL(url, encoded=True),
                        headers=headers,
                        data=_payload(body),
                        allow_redirects=False,
                        auto_decompress=decode,
                    )
                )
            except aiohttp.ClientConnectorError:
                raise Unreachable from None
            except TimeoutError:
                raise Slow from None
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not retry or time.monotonic() - began > _STALE_WITHIN_S:
                    raise Broke from None
                retry = False
            except aiohttp.ClientError:
                raise Broke from None

    async def answers(self, url: str, *, within_s: float) -> bool:
        """Whether a GET of this address succeeds within the time limit."""
        try:
            async with asyncio.timeout(within_s):
                response = await self.send("GET", url, [], None)
        except (UpstreamError, TimeoutError):
            return False
        response.close()
        return response.status < 400


def _payload(body: Body) -> bytes | io.BytesIO | AsyncIterator[bytes] | None:
    return io.BytesIO(body) if isinstance(body, bytes) and len(body) > _LARGE else body
