"""How much memory JSON takes once it is parsed, about."""

from __future__ import annotations

from sys import getsizeof
from typing import Any

from proxy.http.json_body import most_values

MAX_PARSED = 256 * 1024 * 1024  # bytes of memory for one text of JSON while it is parsed, about
PIECE = 64  # bytes of a short text in a list, beside its characters
_BYTES_PER_VALUE = 64  # of JSON that is parsed, beside its text: what an empty list takes
_SMALL = MAX_PARSED // (_BYTES_PER_VALUE + 1)  # bytes of JSON that cannot take more


class TooLarge(Exception):
    """An answer takes more memory than it may."""


def weight(value: Any) -> int:
    """Bytes of memory of a JSON value, however deep."""
    size, inner = 0, [value]
    while inner:
        one = inner.pop()
        size += getsizeof(one)
        if isinstance(one, dict):
            inner += one.values()
            size += PIECE * len(one)
        elif isinstance(one, list):
            inner += one
    return size


def check_parsed(raw: bytes) -> None:
    """Raises TooLarge for JSON that would take more than MAX_PARSED."""
    if len(raw) > _SMALL and len(raw) + _BYTES_PER_VALUE * most_values(raw) > MAX_PARSED:
        raise TooLarge
