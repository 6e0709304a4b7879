"""The beginnings of header lines, each checked once and cached, and what a value may hold."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HEADER_RE

_MAX_CACHED_NAMES = 1_000  # an upstream that invents names must not fill the memory
# bytes that a header's value may have: anything but control characters, except a tab
VALUE_BYTES = bytes([9, *range(32, 127), *range(128, 256)])
PREFIXES: dict[bytes, bytes] = {}  # a header's name as it came → as it is written


def prefix_of(name: bytes) -> bytes:
    """`name: ` in lower case. Raises RuntimeError if it is not a valid name."""
    if not name or HEADER_RE.search(name):
        raise RuntimeError("Invalid HTTP header name.")
    prefix = name.lower() + b": "
    if len(PREFIXES) < _MAX_CACHED_NAMES:
        PREFIXES[name] = prefix
    return prefix


LENGTH, ENCODING, CONNECTION = map(
    prefix_of, (b"content-length", b"transfer-encoding", b"connection")
)
FRAMING_PREFIXES = frozenset({LENGTH, ENCODING, CONNECTION})
