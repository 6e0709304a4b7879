"""The numbers of bench/gate.py that are exact: the gate's promise, compared with references."""

from __future__ import annotations

import pytest

from bench.simulate_gate import (
    REFERENCE,
    clopper_pearson,
    median_rows,
    ours,
    plain_mean,
    promoted_until,
    with_calibration,
)


@pytest.mark.parametrize("threshold", [0.90, 0.95, 0.98])
def test_wrong_promotions_when_every_row_is_looked_at(threshold: float) -> None:
    limits = ours(threshold, 0.05, 2000)
    at_it, below = (promoted_until(limits, true)[-1] for true in (threshold, threshold - 0.02))
    assert below < at_it <= 0.05
    assert promoted_until(clopper_pearson(threshold, 0.05, 2000), threshold)[-1] > 0.2


def test_a_plain_mean_promotes_most_students_below_the_threshold() -> None:
    assert promoted_until(plain_mean(0.95, 2000), 0.93)[-1] == pytest.approx(0.74, abs=0.01)


@pytest.mark.parametrize(("true", "reference"), REFERENCE.items())
def test_rows_to_promote_beat_the_reference(true: float, reference: int) -> None:
    plain = median_rows(promoted_until(ours(0.95, 0.05, 1200), true))
    informed = median_rows(with_calibration(0.95, 0.05, true, 200))
    assert plain is not None
    assert informed is not None
    assert informed < plain < reference
