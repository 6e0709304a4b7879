"""Live comparisons counted by group: what of them a bound may use, whenever one looks.

Comparisons of one group come one after another, between those of others, and the bounds are looked
at after each. Let x be a group's first comparison (1: agrees, 0: not), and m the mean over all of
its comparisons so far. A bound gets the smaller of the two sums over groups, an upper bound the
larger one:

    low = min(Σ x, Σ m)        high = max(Σ x, Σ m)

Why the mean alone will not do: m goes up and down while its group grows, and whoever looks after
each comparison may stop at a high one. What a student serves in one group, chosen so, agrees more
often than the student does. The first comparison of a group never changes. So the stake

    M(Σ x) = product over groups of (1 - u + u / p0)^x (1 - u)^(1 - x)

(distill.gate.bounds) changes with new groups alone. A group is given to a comparison by its text,
before the answers are compared, and for good; so a new group's x agrees with a chance of at most p0
given all comparisons before, as long as groups are independent and the hypothesis holds: M(Σ x) is
a nonnegative supermartingale, and P(it ever reaches 1 / alpha) ≤ alpha by Ville's inequality. As
the stake grows with the sum, M(low) ≤ M(Σ x): **low keeps the promise at every look, for any size
of groups and any correlation within them.** The same holds for the upper bound and high, with
agreement and disagreement exchanged.

Why the first alone will not do: it is early in its conversation. A student that errs on later turns
would pass. The mean weighs all turns alike, as the certificate does, and low is never above it.

The counts do not depend on the order in which groups come, nor on that of comparisons within a
group but for which is the first. bench/simulate_live.py simulates groups of 1 to 50 comparisons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_GROUPS = 50_000  # that are told apart: one that comes back after so many others is a new one


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSums:
    """The sums over groups. Where each comparison is a group of its own, all are counts of rows."""

    groups: int = 0
    rows: int = 0  # comparisons
    agreed: float = 0.0  # sum of the groups' means
    low: float = 0.0  # for a lower bound
    high: float = 0.0  # for an upper bound


@dataclass(slots=True)
class _Group:
    rows: int
    agreed: int
    first: bool  # whether its first comparison agrees


class GroupTally:
    """Counts comparisons by group."""

    def __init__(self, most: int = MAX_GROUPS) -> None:
        """`most`: groups that are told apart, those with the newest comparisons."""
        self._most = most
        self._groups: dict[str, _Group] = {}  # the one with the newest comparison last
        self._mixed: dict[str, _Group] = {}  # of these, those that agree in part
        self._wrong = 0  # of these, those that do not agree at all
        self._count = self._rows = self._firsts = 0
        self._missed = 0.0  # sum of the shares that disagree, of groups not told apart any more

    def add(self, group: str, agrees: bool) -> None:
        """Adds a comparison of this group, newer than all before."""
        known = self._groups.pop(group, None)
        if known is None:
            self.add_group(group, rows=1, agreed=int(agrees), first=agrees)
            return
        self._take_out(group, known)
        known.rows += 1
        known.agreed += agrees
        self._rows += 1
        self._put_in(group, known)

    def add_group(self, group: str, *, rows: int, agreed: int, first: bool) -> None:
        """Adds a group that is not among those told apart. `first`: its first comparison agrees."""
        self._put_in(group, _Group(rows, agreed, first))
        self._count += 1
        self._rows += rows
        self._firsts += first
        if len(self._groups) > self._most:
            oldest = next(iter(self._groups))
            gone = self._groups.pop(oldest)
            self._take_out(oldest, gone)
            self._missed += _missed(gone)

    def add_sums(self, *, groups: int, rows: int, firsts: int, missed: float) -> None:
        """Adds groups that are not told apart.

        `firsts`: how many of their first comparisons agree. `missed`: the sum over them of the
        share that does not.
        """
        self._count += groups
        self._rows += rows
        self._firsts += firsts
        self._missed += missed

    def sums(self) -> GroupSums:
        """The sums over all groups so far."""
        # over those that disagree, so that groups which agree throughout make a whole number
        missed = math.fsum((self._wrong, self._missed, *map(_missed, self._mixed.values())))
        agreed = min(max(self._count - missed, 0.0), float(self._count))
        return GroupSums(
            groups=self._count,
            rows=self._rows,
            agreed=agreed,
            low=min(agreed, self._firsts),
            high=max(agreed, self._firsts),
        )

    def _put_in(self, name: str, group: _Group) -> None:
        self._groups[name] = group
        self._wrong += not group.agreed
        if 0 < group.agreed < group.rows:
            self._mixed[name] = group

    def _take_out(self, name: str, group: _Group) -> None:
        self._wrong -= not group.agreed
        self._mixed.pop(name, None)


def _missed(group: _Group) -> float:
    return (group.rows - group.agreed) / group.rows
