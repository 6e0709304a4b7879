"""Requests that offer another protocol and have a body: Java's client offers HTTP/2 so, for one."""

from __future__ import annotations

from typing import Protocol

import httptools

from proxy.http.asgi import Headers

FRAMING = (b"content-length", b"transfer-encoding")


class ParserCallbacks(Protocol):
    """What httptools calls while it reads."""

    def on_message_begin(self) -> None: ...

    def on_url(self, url: bytes) -> None: ...

    def on_header(self, name: bytes, value: bytes) -> None: ...

    def on_headers_complete(self) -> None: ...

    def on_body(self, body: bytes) -> None: ...

    def on_message_complete(self) -> None: ...


def parser_of_a_body(connection: ParserCallbacks, headers: Headers) -> httptools.HttpRequestParser:
    """A parser that is where the body of a request with these headers begins.

    httptools ends a request that offers an upgrade with its head. Raises HttpParserError.
    """
    lines = [name + b": " + value for name, value in headers if name in FRAMING]
    parser = httptools.HttpRequestParser(_AfterHead(connection))
    parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *lines, b"", b""]))
    return parser


class _AfterHead:
    """A connection's callbacks, for a parser that reads a head the connection has read already."""

    def __init__(self, connection: ParserCallbacks) -> None:
        self._connection = connection
        self._skips_head = True
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete

    def on_message_begin(self) -> None:
        if not self._skips_head:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._skips_head:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._skips_head:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._skips_head:
            self._connection.on_headers_complete()
        self._skips_head = False
