"""/distill and below: handed on to the control plane, which owns the store and answers for it."""

from __future__ import annotations

import asyncio

from proxy.asgi import Headers, Receive, Scope, Send
from proxy.body import read_body
from proxy.errors import control_plane_down
from proxy.headers import to_control_plane
from proxy.keys import Keys
from proxy.relay import relay_untouched
from proxy.upstream import Upstream, UpstreamError
from proxy.watch import ClientWatch

PREFIX = "/distill"


class ControlPlane:
    """The status API, under the same keys as everything else. 503 while its process is down."""

    def __init__(
        self, *, keys: Keys, body_limit: int, upstream: Upstream, port: int, token: str
    ) -> None:
        self._keys = keys
        self._body_limit = body_limit
        self._upstream = upstream
        self._base_url = f"http://127.0.0.1:{port}"
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError."""
        headers: Headers = scope["headers"]
        self._keys.authenticate(headers, browser=True)
        body = await read_body(receive, headers, self._body_limit)
        query: bytes = scope["query_string"]
        target = (scope["raw_path"] + (b"?" + query if query else b"")).decode("ascii")
        with ClientWatch(receive) as watch:
            try:
                response = await self._upstream.send(
                    scope["method"],
                    self._base_url + target,
                    to_control_plane(headers, self._token),
                    body or None,
                    decode=False,
                )
                try:
                    await relay_untouched(response, send)
                finally:
                    response.close()
            except UpstreamError:
                raise control_plane_down() from None
            except asyncio.CancelledError:
                if not watch.gone:
                    raise
