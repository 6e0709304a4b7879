"""Reads a request's body, up to a limit of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.http.asgi import Headers, Receive, Scope, header
from proxy.http.coding import CodingError, decode
from proxy.http.errors import bad_request, too_large, unknown_coding

_DECODED_AT_ONCE = 4 * 1024  # bytes of a compressed body; they may become a thousand times as many


class ClientGone(Exception):
    """The client hung up before its request was whole."""


def body_size(headers: Headers, unknown: int) -> int:
    """The declared size of the body in bytes: 0 without a body, `unknown` if not declared."""
    declared = header(headers, b"content-length")
    if declared is not None and declared.isdigit():
        return int(declared)
    return 0 if header(headers, b"transfer-encoding") is None else unknown


async def read_decoded(
    scope: Scope, receive: Receive, limit: int, *, arrived: Callable[[int], None] | None = None
) -> bytes:
    """The whole body without its content coding, which is taken from the scope's headers too.

    Raises ApiError: 413 over `limit` bytes before or after, 415 on a coding not known here, 400 on
    a body that is not in it. `arrived` is told what the decoding adds, too: see read_body.
    """
    headers: Headers = scope["headers"]
    raw = await read_body(receive, headers, limit, arrived=arrived)
    coding = header(headers, b"content-encoding")
    if coding is None:
        return raw
    if coding.strip().lower() not in (b"identity", b""):
        try:
            if len(raw) > _DECODED_AT_ONCE:
                decoded = await asyncio.to_thread(decode, raw, coding, limit)
            else:
                decoded = decode(raw, coding, limit)
        except OverflowError:
            raise too_large(limit) from None
        except CodingError:
            raise bad_request("The body is not in the encoding that the request states.") from None
        if decoded is None:
            raise unknown_coding()
        if arrived is not None and len(decoded) > len(raw):
            arrived(len(decoded) - len(raw))
        raw = decoded
    scope["headers"] = [pair for pair in headers if pair[0] != b"content-encoding"]
    return raw


async def read_body(
    receive: Receive,
    headers: Headers,
    limit: int,
    *,
    arrived: Callable[[int], None] | None = None,
) -> bytes:
    """The whole body. Raises ApiError 413 as soon as it exceeds `limit` bytes.

    `arrived` is told the bytes of each part, and may raise ApiError too.
    """
    declared = header(headers, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise too_large(limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        whole: bytes = message.get("body", b"")
        if len(whole) > limit:
            raise too_large(limit)
        if arrived is not None:
            arrived(len(whole))
        return whole
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(limit)
        if arrived is not None:
            arrived(len(part))
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
