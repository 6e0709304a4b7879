"""Deterministic sampling of traces with a secret key: uniform, repeatable, unpredictable.

A trace is in the sample when the keyed hash of its id, as a number from 0 to 1, is below the share.
So a restart samples the same traces again, a larger share contains the sample of a smaller one, and
a client, who knows its trace's id from the answer, cannot tell whether it was sampled.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from store.errors import StoreError
from store.files.atomic import make_room, write_atomically
from store.hashing import uniform
from store.records import ComparisonKind

KEY_BYTES = 32


class Sampler:
    """Samples traces with the key of one installation."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def position(self, trace_id: str, kind: ComparisonKind) -> float:
        """A number in [0, 1), uniform over traces and independent between kinds."""
        return uniform(trace_id.encode(), key=self._key, purpose=kind.encode())

    def selects(self, trace_id: str, kind: ComparisonKind, share: float) -> bool:
        """Whether a trace is in the sample of this share."""
        return self.position(trace_id, kind) < share


def load_key(file: Path) -> bytes:
    """The key in this file, created at the first call: 32 random bytes, mode 0600.

    Raises StoreError when it cannot be read or written. What is no key is replaced: then only the
    sample of the last hour's traces is lost.
    """
    try:
        make_room(file)
        with suppress(FileNotFoundError):
            key = file.read_bytes()
            if len(key) == KEY_BYTES:
                if file.stat().st_mode & 0o077:
                    file.chmod(0o600)
                return key
        key = secrets.token_bytes(KEY_BYTES)
        write_atomically(file, key, mode=0o600)
    except OSError as error:
        raise StoreError(f"{file}: the key of the sampling: {error.strerror}") from None
    return key
