"""CPU time and memory of processes, by the operating system."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psutil

_MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Memory:
    """Of some processes together, in megabytes. Shared pages count in each one's RSS."""

    rss_mb: float
    pss_mb: float | None  # shared pages divided by their users; None: this system does not give it
    processes: int


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds of CPU time."""

    user: float = 0.0
    system: float = 0.0

    @property
    def total(self) -> float:
        return self.user + self.system

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.user - other.user, self.system - other.system)

    def __add__(self, other: Cpu) -> Cpu:
        return Cpu(self.user + other.user, self.system + other.system)


def cpu_of(processes: Iterable[psutil.Process]) -> Cpu:
    """CPU time of the processes since they were started. Raises psutil.Error when one has ended."""
    total = Cpu()
    for process in processes:
        times = process.cpu_times()
        total += Cpu(times.user, times.system)
    return total


def memory_of(processes: Iterable[psutil.Process]) -> Memory | None:
    """None without processes."""
    infos = [process.memory_full_info() for process in processes]
    if not infos:
        return None
    shares = [info.pss for info in infos if hasattr(info, "pss")]
    return Memory(
        rss_mb=round(sum(info.rss for info in infos) / _MB, 1),
        pss_mb=round(sum(shares) / _MB, 1) if len(shares) == len(infos) else None,
        processes=len(infos),
    )
