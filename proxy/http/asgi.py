"""The part of ASGI that the data plane uses: types, and sending a whole answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]
Headers = list[Header]

JSON: Header = (b"content-type", b"application/json")


def header(headers: Iterable[Header], name: bytes) -> bytes | None:
    """The first value of a header, or None. `name` in lower case, as ASGI gives names."""
    for key, value in headers:
        if key == name:
            return value
    return None


async def start(send: Send, status: int, headers: Headers) -> None:
    """Sends the status and the headers; a body must follow."""
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Sends a whole answer; its length is added to the headers."""
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
