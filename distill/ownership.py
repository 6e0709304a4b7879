"""The lock of the process that owns the database, from before it opens it until it has ended.

DuckDB's own lock is free for a moment while the file is attached again or rewritten: a control
plane that is still stopping and its successor would both collect then.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store.errors import StoreError, StoreLocked
from store.files.atomic import make_room

FILE = "control.lock"
MAX_WAIT_S = 15.0  # longer than a control plane takes to stop
_POLL_S = 0.1


@contextmanager
def owned(data_dir: Path, *, max_wait_s: float = MAX_WAIT_S) -> Iterator[None]:
    """Holds the lock inside; it ends with the process, however that ends.

    Waits for an owner that is stopping. Raises StoreLocked when it does not, StoreError when the
    lock cannot be made.
    """
    path = data_dir / FILE
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_room(path)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: cannot be used: {error.strerror}") from None
    try:
        _take(lock, path, time.monotonic() + max_wait_s)
        yield
    finally:
        os.close(lock)


def _take(lock: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= deadline:
                raise StoreLocked(
                    f"{path} is held by a control plane that is still running"
                ) from None
            time.sleep(_POLL_S)
        else:
            return
