"""Live comparisons counted by group."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.gate.bounds import log_e_value
from distill.gate.tally import GroupSums, GroupTally

COMPARISONS = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60)


def tally(comparisons: list[tuple[int, bool]], most: int = 1000) -> GroupSums:
    counted = GroupTally(most)
    for group, agrees in comparisons:
        counted.add(str(group), agrees)
    return counted.sums()


def test_a_conversation_compared_fifty_times_is_one_unit() -> None:
    sums = tally([(0, True)] * 50 + [(1, False), (2, True), (2, False)])
    assert (sums.groups, sums.rows, sums.agreed) == (3, 53, 1.5)
    assert (sums.low, sums.high) == (1.5, 2)  # first comparisons: right, wrong, right


def test_comparisons_that_belong_to_nothing_are_counted_as_before() -> None:
    sums = tally([(n, n % 10 > 0) for n in range(90)])
    assert sums == GroupSums(groups=90, rows=90, agreed=81, low=81, high=81)


@given(COMPARISONS)
def test_the_sums_are_those_of_means_and_first_comparisons(
    comparisons: list[tuple[int, bool]],
) -> None:
    by_group: defaultdict[int, list[bool]] = defaultdict(list)
    for group, agrees in comparisons:
        by_group[group].append(agrees)
    sums = tally(comparisons)
    mean = sum(sum(each) / len(each) for each in by_group.values())
    first = sum(each[0] for each in by_group.values())
    assert (sums.groups, sums.rows) == (len(by_group), len(comparisons))
    assert sums.agreed == pytest.approx(mean)
    assert sums.low == pytest.approx(min(mean, first))
    assert sums.high == pytest.approx(max(mean, first))
    assert 0 <= sums.low <= sums.agreed <= sums.high <= sums.groups


@given(COMPARISONS, st.randoms(use_true_random=False))
def test_the_order_of_groups_does_not_matter(
    comparisons: list[tuple[int, bool]], draw: object
) -> None:
    order = list(range(6))
    draw.shuffle(order)  # type: ignore[attr-defined]
    by_group = sorted(comparisons, key=lambda one: order[one[0]])  # stable within a group
    assert tally(by_group) == tally(comparisons)


@given(COMPARISONS)
def test_what_is_told_apart_no_more_still_counts(comparisons: list[tuple[int, bool]]) -> None:
    """Groups come back as new ones; one after the other they count the same."""
    one_by_one = sorted(comparisons, key=lambda one: one[0])
    few, many = tally(one_by_one, most=1), tally(one_by_one)
    assert (few.groups, few.rows) == (many.groups, many.rows)
    assert few.agreed == pytest.approx(many.agreed)
    assert few.low == pytest.approx(many.low)


@pytest.mark.parametrize("size", [1, 5, 50])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
@pytest.mark.slow
def test_looking_after_each_comparison_proves_nothing_wrong(size: int, correlation: float) -> None:
    """A student at the threshold, its groups open all at once: the worst moments to stop at."""
    rng = np.random.default_rng([size, int(10 * correlation)])
    p0, alpha, rounds, groups = 0.8, 0.1, 150, 40
    proven = 0
    for _ in range(rounds):
        if correlation in (0.0, 1.0):
            chances = np.full(groups, p0) if correlation == 0 else rng.random(groups) < p0
        else:
            spread = 1 / correlation - 1
            chances = rng.beta(p0 * spread, (1 - p0) * spread, groups)
        agrees = rng.random((size, groups)) < chances
        counted, largest = GroupTally(), 0.0
        for turn in agrees:
            for group, one in enumerate(turn):
                counted.add(str(group), bool(one))
            sums = counted.sums()
            largest = max(largest, log_e_value(sums.low, sums.groups, p0))
        proven += largest >= -np.log(alpha)
    assert proven <= alpha * rounds + 2 * np.sqrt(alpha * rounds)
