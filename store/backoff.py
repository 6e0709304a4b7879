"""Exponential back-off: each further failure in a row doubles the delay, up to a limit."""

from __future__ import annotations

import math
from collections.abc import Callable

MAX_DOUBLINGS = 64  # enough for any limit; 2.0**1024 would overflow


def backoff_s(failures: int, *, first_s: float, max_s: float) -> float:
    """The delay in seconds after so many failures in a row: `first_s` after the first one."""
    doublings = min(max(failures - 1, 0), MAX_DOUBLINGS)
    return float(min(first_s * 2.0**doublings, max_s))


class Backoff:
    """The back-off of one thing that may fail: how long to leave it alone, and since when."""

    def __init__(self, *, first_s: float, max_s: float, clock: Callable[[], float]) -> None:
        self._first_s, self._max_s, self._clock = first_s, max_s, clock
        self._delay_s = 0.0  # the last one; 0 after a success
        self._retry_at = -math.inf
        self._waiting_s = 0.0  # the delay that `_retry_at` ends

    @property
    def remaining_s(self) -> float:
        """Seconds until the next try; 0 when it may be tried now."""
        now = self._clock()
        if self._retry_at - now > self._waiting_s:  # the clock was set back
            self._retry_at = now + self._waiting_s
        return max(0.0, self._retry_at - now)

    def failed(self, min_delay_s: float = 0.0) -> float:
        """Starts a delay and returns it: twice the last one, and at least `min_delay_s`."""
        self._delay_s = min(max(self._first_s, min_delay_s, 2 * self._delay_s), self._max_s)
        self._retry_at = self._clock() + self._delay_s
        self._waiting_s = self._delay_s
        return self._delay_s

    def succeeded(self) -> None:
        """The next failure waits for `first_s` again. A delay that has started goes on."""
        self._delay_s = 0.0
