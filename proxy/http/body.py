"""Reads a request's body, up to a limit of bytes."""

from __future__ import annotations

from proxy.http.asgi import Headers, Receive, header
from proxy.http.errors import too_large


class ClientGone(Exception):
    """The client hung up before its request was whole."""


def body_size(headers: Headers, unknown: int) -> int:
    """The declared size of the body in bytes: 0 without a body, `unknown` if not declared."""
    declared = header(headers, b"content-length")
    if declared is not None and declared.isdigit():
        return int(declared)
    return 0 if header(headers, b"transfer-encoding") is None else unknown


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body. Raises ApiError 413 as soon as it exceeds `limit` bytes."""
    declared = header(headers, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise too_large(limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        whole: bytes = message.get("body", b"")
        if len(whole) > limit:
            raise too_large(limit)
        return whole
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
