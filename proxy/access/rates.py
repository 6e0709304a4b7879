"""Rates per minute, counted by all workers together.

The generic cell rate algorithm (ITU-T I.371, there for ATM cells): a rate is one number, the time
at which all admitted requests would be paid off at that rate. A request that would push it more
than a minute into the future has to wait. So a burst of a minute's worth is admitted, and then as
many requests as the rate allows.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from store.files.atomic import make_folder

WINDOW_S = 60.0
_MAX_PERIOD_S = 3600.0
_PREFIX = "limits-"


class Cells(Protocol):
    """Numbers that are read and written by index."""

    def __getitem__(self, index: int, /) -> float: ...

    def __setitem__(self, index: int, value: float, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit; `cell` is the index of its number."""

    cell: int
    per_minute: int

    def wait_s(self, cells: Cells, now: float, cost: float = 1.0) -> float:
        """Seconds until a request of this cost is admitted; 0: now. `now`: by a monotonic clock."""
        paid_off = self._paid_off(cells, now)
        return max(0.0, paid_off + cost * WINDOW_S / self.per_minute - WINDOW_S - now)

    def take(self, cells: Cells, now: float, cost: float = 1.0) -> None:
        """Counts a cost, whether it was admitted or not."""
        cells[self.cell] = self._paid_off(cells, now) + cost * WINDOW_S / self.per_minute

    def _paid_off(self, cells: Cells, now: float) -> float:
        # a clock that was set back must not refuse everything for that long
        return min(max(cells[self.cell], now), now + _MAX_PERIOD_S)


def shared_cells(folder: Path, names: Sequence[str]) -> Cells:
    """One number per name, in a file that all workers map.

    Other names, as after a change of the config, have another file, and the old one is deleted.
    There is no lock: two workers that count in the same microsecond may count once. If the folder
    cannot be written, each process counts by itself.
    """
    layout = blake2b("\n".join(names).encode(), digest_size=8).hexdigest()
    path = folder / f"{_PREFIX}{layout}"
    size = 8 * len(names)
    try:
        make_folder(folder)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # written, not truncated: who touches a hole of a file on a full disk is ended
            while (length := os.fstat(fd).st_size) < size:
                os.pwrite(fd, bytes(size - length), length)
            mapped = mmap.mmap(fd, size)
        finally:
            os.close(fd)
    except OSError:
        return [0.0] * len(names)
    for other in folder.glob(f"{_PREFIX}*"):
        if other != path:
            with suppress(OSError):
                other.unlink()
    return memoryview(mapped).cast("d")
