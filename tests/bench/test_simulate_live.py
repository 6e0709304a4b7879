"""bench/simulate_live.py counts as the product does."""

from __future__ import annotations

import numpy as np
import pytest

from bench.simulate_live import looks, report, traffic
from distill.gate.tally import GroupTally


@pytest.mark.parametrize("size", [1, 4])
def test_all_looks_at_once_are_those_of_the_shipped_counts(size: int) -> None:
    live = traffic(np.random.default_rng(1), size, 0.3, 0.8)
    groups, low, high = looks(live)
    tally = GroupTally()
    for place in range(len(live)):
        tally.add(str(live.groups[place]), bool(live.agrees[place]))
        sums = tally.sums()
        assert sums.groups == groups[place]
        assert (sums.low, sums.high) == pytest.approx((low[place], high[place]))


@pytest.mark.slow
def test_few_rounds_confirm_nobody_below_the_threshold() -> None:
    (row,) = report(6, sizes=[20], correlations=[1.0])
    assert row["confirmed"] <= 1 / 6
    assert row["by_row"] >= 0.5
