"""How long ago something in the store happened, by a clock that nobody sets.

The store has times of day. Where the clock is set back by an hour, a pause that is computed from
them lasts an hour longer; where it is set forward, there is none. So each event is dated by the
time of day once, when it is seen for the first time, and from then on by the monotonic clock. After
a restart it is seen anew: what lies in the future then has just happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_EVENTS = 10_000  # that are remembered


class Elapsed:
    """Dates events. One instance as long as the process lives."""

    def __init__(
        self, clock: Callable[[], float], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock`: the time of day, seconds since the epoch. `monotonic`: seconds."""
        self._clock, self._monotonic = clock, monotonic
        self._happened: dict[str, float] = {}  # by the monotonic clock; the oldest seen first

    def since(self, event: str, at: float) -> float:
        """Seconds since an event with this id, which happened at the time of day `at`."""
        now = self._monotonic()
        if event not in self._happened:
            self._happened[event] = now - max(self._clock() - at, 0.0)
            if len(self._happened) > MAX_EVENTS:
                del self._happened[next(iter(self._happened))]
        return now - self._happened[event]
