"""The headers of what a browser shows: pages of ours, and the refusals in their place.

The control plane's pages bring a content security policy of their own; everything else gets one
that allows nothing.
"""

from __future__ import annotations

from proxy.http.asgi import Headers, Message, Send

_POLICY = b"content-security-policy"
_HEADERS: Headers = [
    (
        _POLICY,
        b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def with_page_headers(send: Send) -> Send:
    """Sends the same with these headers, where the answer does not have them yet."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Headers = message["headers"]
            names = {name for name, _ in headers}
            message["headers"] = headers + [pair for pair in _HEADERS if pair[0] not in names]
        await send(message)

    return guarded
