"""Which comparisons a change detector counts, so that one group cannot raise its alarm.

A comparison counts unless its group was counted within GOOD_AGAIN_S, or was bad within BAD_AGAIN_S.
So a burst of a conversation's turns is one observation; a group that goes on for hours is looked at
again, and a student that turns bad is found out by the groups that it has at that time; what is
wrong in one group is said once a day.

Why false alarms stay as rare as the detector promises: it needs each observation to be bad with a
chance of at most p, whatever came before. Let a group be bad with a chance of q each time, where q
is drawn for each group and is p on average. That an observation counts is decided before its
outcome, and after a bad one none of the group does, for a day. So all that was counted of a group
within a day was good, k times, and the chance is E[q (1 - q)^k] / E[(1 - q)^k] ≤ E[q] = p: q grows
and (1 - q)^k falls with q, so that they are negatively correlated (Chebyshev's association
inequality). It holds for any size of groups and any correlation within them, from none (q = p) to
all (q is 0 or 1). A group that is bad for days is bad once on each.

A complaint is no fair sample. It counts unless its group was bad within BAD_AGAIN_S.
"""

from __future__ import annotations

GOOD_AGAIN_S = 600.0
BAD_AGAIN_S = 24 * 3600.0
MAX_GROUPS = 20_000  # remembered, those that were counted last


class Recount:
    """The groups that one detector has counted of late."""

    def __init__(self) -> None:
        self._good: dict[str, float] = {}  # when each was counted last; the last counted one last
        self._bad: dict[str, float] = {}  # the same of bad observations

    def due(self, group: str, at: float) -> bool:
        """Whether an observation of a request that was made at `at` counts."""
        return not (_within(self._good.get(group), at, GOOD_AGAIN_S) or self.bad_lately(group, at))

    def bad_lately(self, group: str, at: float) -> bool:
        """Whether the group was bad within BAD_AGAIN_S."""
        return _within(self._bad.get(group), at, BAD_AGAIN_S)

    def count(self, group: str, at: float, *, bad: bool) -> None:
        """Notes that an observation was counted."""
        times = self._bad if bad else self._good
        times.pop(group, None)
        times[group] = at
        if len(times) > MAX_GROUPS:
            del times[next(iter(times))]


def _within(last: float | None, at: float, seconds: float) -> bool:
    return last is not None and abs(at - last) < seconds
