"""Counts of groups: rows that belong together are one unit of evidence (distill.dataset.groups).

A group counts once, by the mean over its rows: its agreement is that of its rows that are served, a
number from 0 to 1, and it covers the share of its rows that is served. Where no rows belong
together, these are the counts of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from store.records import Evaluation


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """What is served of some rows, counted in groups."""

    groups: int  # with a row that is served
    agreed: float  # sum of their agreements
    covered: float  # sum over all groups of the share of rows that is served
    rows: int  # that are served


class GroupedRows:
    """Evaluated rows with their groups."""

    def __init__(self, rows: Sequence[Evaluation]) -> None:
        self.rows = rows
        self.unit = "groups" if any(row.group is not None for row in rows) else "rows"
        self._numbers = np.array(group_numbers(rows), dtype=np.int64)
        self._sizes = np.bincount(self._numbers)
        self._agrees = np.array([row.agrees for row in rows], dtype=np.float64)

    def __len__(self) -> int:
        """How many groups there are."""
        return len(self._sizes)

    def counts(self, places: Sequence[int], agrees: Sequence[bool] | None = None) -> GroupCounts:
        """The counts when the rows at these places are served.

        `agrees`: of these rows, in place of what their evaluation says.
        """
        numbers = self._numbers[np.asarray(places, dtype=np.int64)]
        served = np.bincount(numbers, minlength=len(self))
        weights = self._agrees[places] if agrees is None else np.array(agrees, dtype=np.float64)
        agreed = np.bincount(numbers, weights, minlength=len(self))
        some = served > 0
        return GroupCounts(
            groups=int(some.sum()),
            agreed=float((agreed[some] / served[some]).sum()),
            covered=self._total(served),
            rows=len(places),
        )

    def total(self, values: Sequence[bool]) -> float:
        """The sum over the groups of the share of their rows that this is true of."""
        return self._total(np.bincount(self._numbers, values, minlength=len(self)))

    def _total(self, rows: Any) -> float:
        return float((rows / self._sizes).sum())


def group_numbers(rows: Sequence[Evaluation]) -> list[int]:
    """The number of each row's group, from 0; a row without a group is one of its own."""
    numbers: dict[tuple[str, int], int] = {}
    keys = (
        ("row", place) if row.group is None else ("group", row.group)
        for place, row in enumerate(rows)
    )
    return [numbers.setdefault(key, len(numbers)) for key in keys]
