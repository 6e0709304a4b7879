"""A request on the wire: the target of a URL, and the head of the message."""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from proxy.http.asgi import Headers

_PORTS = {"http": 80, "https": 443}
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_NOT_IN_A_LINE = b"\r\n\0"
_NOT_IN_A_URL = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class Origin:
    """Connections to the same origin can be reused (RFC 6454, section 4)."""

    scheme: str  # http or https
    host: str  # a name, or an address without brackets
    port: int

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an address, None for a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def loopback(self) -> bool:
        """Whether it is on this machine."""
        address = self.address
        if address is not None:
            return address.is_loopback
        return self.host == "localhost" or self.host.endswith(".localhost")


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a URL."""

    origin: Origin
    host: bytes  # the Host header's value
    path: bytes  # with its query string
    authorization: bytes | None  # of the URL's `user:password@` (RFC 7617)

    def first_lines(self, method: str) -> bytes:
        """The request line and the Host header, without the last line's end."""
        lines = b"%b %b HTTP/1.1\r\nhost: %b" % (method.encode("ascii"), self.path, self.host)
        if self.authorization is not None:
            lines += b"\r\nauthorization: " + self.authorization
        return lines


def target_of(url: str) -> Target:
    """The target of a URL, its path and query unchanged. Raises ValueError."""
    if _NOT_IN_A_URL.search(url):
        raise ValueError("a URL holds a space or a control character")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("a URL is not an http or https address")
    host = parts.hostname
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    default = _PORTS[parts.scheme]
    port = default if parts.port is None else parts.port
    named = f"[{host}]" if ":" in host else host
    path = quote(parts.path or "/", safe=_PRINTABLE)
    if parts.query:
        path += "?" + quote(parts.query, safe=_PRINTABLE)
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Basic " + b64encode(pair.encode())
    return Target(
        origin=Origin(parts.scheme, host, port),
        host=(named if port == default else f"{named}:{port}").encode("ascii"),
        path=path.encode("ascii"),
        authorization=authorization,
    )


def head_lines(first_lines: bytes, headers: Headers) -> bytes:
    """The head of a request up to its framing, without the last line's end.

    Raises ValueError if a header contains CR, LF or NUL, which would end its line.
    """
    lines = b"\r\n".join((first_lines, *map(b": ".join, headers)))
    ours = 2 * (first_lines.count(b"\n") + len(headers))
    if len(lines) - len(lines.translate(None, _NOT_IN_A_LINE)) != ours:
        raise ValueError("a header holds a line end or a NUL")
    return lines
