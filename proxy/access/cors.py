"""CORS: which web pages may call the API from a browser.

https://fetch.spec.whatwg.org/#http-cors-protocol

Those of `server.cors_origins`, below /v1. A preflight is answered here and reaches no teacher; of a
page from elsewhere it is refused in words, and other answers have no headers that let it read them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from proxy.http.asgi import Header, Headers, Message, Scope, Send, header, start
from proxy.http.errors import foreign_cors

PREFIX = "/v1/"
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_MAX_AGE_S = 600  # how long a browser keeps the answer to a preflight; Chromium: two hours at most
_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z, -]{0,4096}")  # a list of header names
# ours by name, for requests with a browser's own credentials, where `*` does not mean all
_EXPOSED: Header = (
    b"access-control-expose-headers",
    b"*, x-understudy-route, x-understudy-reason, x-understudy-trace, x-understudy-task, "
    b"x-understudy-content, x-request-id, request-id, retry-after, x-should-retry",
)
_VARY: Header = (b"vary", b"origin")


class Cors:
    """The origins of `server.cors_origins`."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.encode("ascii") for origin in origins)

    @property
    def allows_some(self) -> bool:
        return bool(self._origins)

    def allows(self, origin: bytes) -> bool:
        """Whether pages of this origin may call the API."""
        return self._any or origin in self._origins

    def readable(self, headers: Headers, send: Send) -> Send:
        """`send`, with the headers that let the page behind a request read the answer."""
        origin = header(headers, b"origin")
        if origin is None or not self.allows(origin):
            return send
        ours = [(b"access-control-allow-origin", origin), _EXPOSED, _VARY]

        async def send_with_ours(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        return send_with_ours

    async def answer_preflight(self, scope: Scope, send: Send) -> bool:
        """Answers a preflight; False if the request is none. `send`: as `readable` gives it.

        Raises ApiError 403 where the page may not ask.
        """
        headers: Headers = scope["headers"]
        origin = header(headers, b"origin")
        if origin is None or header(headers, b"access-control-request-method") is None:
            return False
        if not self.allows(origin) or not scope["path"].startswith(PREFIX):
            raise foreign_cors()
        asked = header(headers, b"access-control-request-headers") or b""
        answer = [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-max-age", b"%d" % _MAX_AGE_S),
            (b"vary", b"access-control-request-headers"),
        ]
        if asked and _NAMES.fullmatch(asked):
            answer.append((b"access-control-allow-headers", asked))
        if header(headers, b"access-control-request-private-network") == b"true":
            answer.append((b"access-control-allow-private-network", b"true"))
        await start(send, 204, answer)
        await send({"type": "http.response.body", "body": b""})
        return True
