"""Which traces are looked at closer: a draw that is uniform, repeatable, and not to be foreseen.

A trace is drawn with a share when the keyed hash of its id, as a number from 0 to 1, is below the
share. So a restart draws the same traces again, a larger share draws those of a smaller one too,
and a client, who knows its trace's id from the answer, cannot tell whether it was drawn.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from store.errors import StoreError
from store.files.atomic import write_atomically
from store.records import ComparisonKind

KEY_BYTES = 32


class Draw:
    """Draws traces with one installation's key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def number(self, trace_id: str, kind: ComparisonKind) -> float:
        """Of a trace: from 0 to below 1, uniform over traces, another one for each kind."""
        digest = blake2b(
            trace_id.encode(), digest_size=8, key=self._key, person=kind.encode()
        ).digest()
        return (int.from_bytes(digest, "big") >> 11) / (1 << 53)  # what a double holds exactly

    def takes(self, trace_id: str, kind: ComparisonKind, share: float) -> bool:
        """Whether a trace is drawn when this share of them is to be."""
        return self.number(trace_id, kind) < share


def load_key(file: Path) -> bytes:
    """The key in this file, made at the first call: 32 random bytes, readable by us alone.

    Raises StoreError when it cannot be read or made. A key that is cut short is made anew: all
    that is lost with it is which of the last hour's traces were drawn.
    """
    try:
        with suppress(FileNotFoundError):
            key = file.read_bytes()
            if len(key) == KEY_BYTES:
                if file.stat().st_mode & 0o077:
                    file.chmod(0o600)
                return key
        key = secrets.token_bytes(KEY_BYTES)
        write_atomically(file, key, mode=0o600)
    except OSError as error:
        raise StoreError(f"{file}: the key of the draws: {error.strerror}") from None
    return key
