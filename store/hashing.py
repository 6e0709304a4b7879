"""Deterministic sampling: a number that follows from a text, and is uniform over texts."""

from __future__ import annotations

from hashlib import blake2b


def uniform(content: bytes, *, key: bytes = b"", purpose: bytes = b"") -> float:
    """A number in [0, 1): always the same for the same arguments, uniform over contents.

    `key`: at most 64 bytes; without it the number cannot be predicted. `purpose`: at most 16
    bytes; the numbers of two purposes are independent of each other.
    """
    digest = blake2b(content, digest_size=8, key=key, person=purpose).digest()
    # 53 bits, what a float holds: all 64 could round up to 1
    return (int.from_bytes(digest, "big") >> 11) / 2**53
