"""Sends requests through the forward proxy that the environment names.

aiohttp does this: it knows CONNECT, TLS inside it, and the proxy's password. It is imported only
here, so deployments without a forward proxy do not load it.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator

import aiohttp
from yarl import URL

from proxy.http.asgi import Headers
from proxy.upstream.errors import Broke, Slow, Unreachable
from proxy.upstream.response import MAX_BODY_BYTES, MIN_UNKNOWN_STATUS, Response

_LARGE = 1024 * 1024  # bytes: aiohttp wants larger bodies as a file
_GATHER_TICK_S = 0.005
_OWN_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class ThroughProxy:
    """Pooled connections through forward proxies. Create it in a running event loop."""

    def __init__(
        self, *, connect_timeout_s: float, read_timeout_s: float, context: ssl.SSLContext
    ) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=connect_timeout_s, sock_read=read_timeout_s
            ),
            skip_auto_headers=_OWN_HEADERS,
            auto_decompress=False,
        )

    async def send(
        self,
        method: str,
        url: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
        *,
        proxy: str,
    ) -> Response:
        """The answer to a request that goes through `proxy`, a URL. Raises UpstreamError."""
        # aiohttp takes text, and writes it as UTF-8
        pairs = [(name.decode(), value.decode("utf-8", "replace")) for name, value in headers]
        data: io.BytesIO | AsyncIterator[bytes] | bytes | None = body
        if isinstance(body, bytes):
            pairs.append(("content-length", str(len(body))))
            data = io.BytesIO(body) if len(body) > _LARGE else body
        try:
            inner = await self._session.request(
                method,
                URL(url, encoded=True),
                headers=pairs,
                data=data,
                allow_redirects=False,
                proxy=proxy,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.InvalidURL):
            raise Unreachable from None
        except TimeoutError:
            raise Slow from None
        except aiohttp.ClientError:
            raise Broke from None
        if inner.status >= MIN_UNKNOWN_STATUS:
            inner.close()
            raise Broke
        return _Relayed(inner)

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()


class _Relayed(Response):
    __slots__ = ("_inner",)

    def __init__(self, inner: aiohttp.ClientResponse) -> None:
        super().__init__(inner.status, [(name.lower(), value) for name, value in inner.raw_headers])
        self._inner = inner

    async def read(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := await self.next_chunk():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise Broke
        return b"".join(pieces)

    async def gather(self, seconds: float) -> bool:
        content = self._inner.content
        ends = asyncio.get_running_loop().time() + seconds
        while not content.is_eof() and content.exception() is None:
            if asyncio.get_running_loop().time() >= ends:
                return False
            await asyncio.sleep(_GATHER_TICK_S)  # aiohttp tells of data, not of the end
        return True

    async def next_chunk(self) -> bytes:
        try:
            return await self._inner.content.readany()
        except TimeoutError:
            raise Slow from None
        except aiohttp.ClientError:
            raise Broke from None

    def close(self) -> None:
        self._inner.close()
