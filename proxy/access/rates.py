"""How often something may happen in a minute, counted by all workers together.

The generic cell rate algorithm (ITU-T I.371, there for ATM cells): of each rate only one number is
kept, the time at which everything that was let in would be paid off at that rate. Whoever would
push it more than a minute into the future has to wait. So a minute's worth may come at once, and
then as much as the rate allows.
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

WINDOW_S = 60.0
_MAX_PERIOD_S = 3600.0
_PREFIX = "limits-"


class Cells(Protocol):
    """Numbers that can be read and written by their place."""

    def __getitem__(self, place: int, /) -> float: ...

    def __setitem__(self, place: int, value: float, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit that is counted in cell number `cell`."""

    cell: int
    per_minute: int

    def wait_s(self, cells: Cells, now: float, cost: float = 1.0) -> float:
        """Seconds until so much more may come; 0: now. `now`: seconds since the epoch."""
        paid_off = self._paid_off(cells, now)
        return max(0.0, paid_off + cost * WINDOW_S / self.per_minute - WINDOW_S - now)

    def take(self, cells: Cells, now: float, cost: float = 1.0) -> None:
        """Counts so much, whether it was allowed or not."""
        cells[self.cell] = self._paid_off(cells, now) + cost * WINDOW_S / self.per_minute

    def _paid_off(self, cells: Cells, now: float) -> float:
        # a clock that is set back must not close the door for as long
        return min(max(cells[self.cell], now), now + _MAX_PERIOD_S)


def shared_cells(folder: Path, names: Sequence[str]) -> Cells:
    """One number for each name, in a file that all workers map.

    Other names, as after a change of the config, make another file, and the old one goes. Two
    workers that count in the same microsecond may count one for two; nobody waits for a lock.
    Without a folder that can be written they are of this process alone.
    """
    layout = blake2b("\n".join(names).encode(), digest_size=8).hexdigest()
    path = folder / f"{_PREFIX}{layout}"
    size = 8 * len(names)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(fd, size)
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
