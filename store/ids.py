"""Ids: UUIDv7 strings, which sort by the time they were made."""

from __future__ import annotations

import os
import time

_VARIANT = "89ab"
_tails: list[str] = []  # random parts that are not used yet
os.register_at_fork(after_in_child=_tails.clear)  # or both processes would use the same


def new_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then 74 random bits."""
    # not by uuid.UUID, which is several times slower: every request needs an id
    try:
        tail = _tails.pop()
    except IndexError:
        tail = _random_tail()
    now = f"{time.time_ns() // 1_000_000:012x}"
    return f"{now[:8]}-{now[8:]}{tail}"


def later_id(than: str | None) -> str:
    """A new id that sorts after another one, also when the clock was set back since."""
    fresh = new_id()
    if than is None or fresh > than:
        return fresh
    after = f"{int(than.replace('-', '')[:12], 16) + 1:012x}"
    return f"{after[:8]}-{after[8:]}{fresh[13:]}"


def _random_tail() -> str:
    """The random part of an id. Random bytes for many ids come from one system call."""
    digits = os.urandom(10 * 200).hex()
    tails = [
        f"-7{one[1:4]}-{_VARIANT[int(one[4], 16) & 3]}{one[5:8]}-{one[8:]}"
        for one in (digits[at : at + 20] for at in range(0, len(digits), 20))
    ]
    _tails.extend(tails[1:])
    return tails[0]
