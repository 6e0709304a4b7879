"""Groups in the gate: rows that belong together are one unit of evidence, in every count."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench import simulate_groups
from distill.gate.bounds import log_e_value, log_e_values, lower_bound, outcomes, upper_bound
from distill.gate.gate import attempt_alpha
from distill.gate.groups import GroupedRows
from distill.gate.slices import slices_of
from store.records import Evaluation
from tests.helpers.gate_samples import GATE, chosen, judge, row, rows


def grouped(evaluations: list[Evaluation], size: int) -> list[Evaluation]:
    """Each of these rows as a group of so many equal ones."""
    return [
        replace(e, group=number, input_hash=f"{number}/{place}")
        for number, e in enumerate(evaluations)
        for place in range(size)
    ]


# ---- the bound ---------------------------------------------------------------------------------


@given(st.floats(0, 1), st.floats(0.01, 0.99), st.floats(0.001, 0.999))
def test_a_fraction_multiplies_the_stake_by_no_more_than_a_fair_bet(
    x: float, p0: float, bet: float
) -> None:
    won, lost = outcomes(np.array([bet]), p0)
    assert np.exp(x * won + (1 - x) * lost)[0] <= (1 - bet + bet * x / p0) * (1 + 1e-12)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(1, 6), st.floats(0, 1), st.sampled_from([0.8, 0.9, 0.95]))
@pytest.mark.slow
def test_the_e_value_of_dependent_rows_has_expectation_at_most_one(
    groups: int, size: int, correlation: float, p0: float
) -> None:
    """Exactly, by enumeration: a share of the groups is of one mind, in the others rows differ."""
    agreed = np.arange(size + 1)
    apart = stats.binom.pmf(agreed, size, p0)
    alike = np.where(agreed == size, p0, np.where(agreed == 0, 1 - p0, 0.0))
    chances = correlation * alike + (1 - correlation) * apart
    total = 0.0
    for outcome in product(range(size + 1), repeat=groups):
        chance = float(np.prod([chances[k] for k in outcome]))
        total += chance * np.exp(log_e_value(sum(outcome) / size, groups, p0))
    assert total <= 1 + 1e-9


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_bounds_of_fractions_lie_between_those_of_whole_numbers(
    n: int, data: st.DataObject
) -> None:
    agreed = data.draw(st.integers(0, 8 * n)) / 8
    low, high = int(np.floor(agreed)), int(np.ceil(agreed))
    assert lower_bound(low, n, 0.05) <= lower_bound(agreed, n, 0.05) + 1e-9
    assert lower_bound(agreed, n, 0.05) <= lower_bound(high, n, 0.05) + 1e-9
    assert upper_bound(low, n, 0.05) <= upper_bound(agreed, n, 0.05) + 1e-9
    many = log_e_values(np.array([agreed]), np.array([n]), 0.9)
    assert many[0] == pytest.approx(log_e_value(agreed, n, 0.9))


# ---- the certificate ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 50])
def test_fifty_equal_rows_of_a_group_are_no_more_evidence_than_one(size: int) -> None:
    heldout = rows(196, 200)
    one, many = judge(heldout), judge(grouped(heldout, size))
    numbers = ("n", "agreed", "heldout", "lower_bound", "coverage", "agreement_all", "passed")
    assert [getattr(many, name) for name in numbers] == [getattr(one, name) for name in numbers]
    assert (many.rows, many.heldout_rows) == (200 * size, 200 * size)
    assert chosen(grouped(heldout, size), 200) == chosen(heldout, 200)


def test_eighty_tickets_with_six_updates_each_are_too_few() -> None:
    """131 rows that all agree, of 22 tickets, once gave a bound of 0.9648."""
    heldout = grouped(rows(22, 22), 6)[:131]
    assert judge([replace(e, group=None) for e in heldout]).passed
    certificate = judge(heldout)
    assert not certificate.passed
    assert (certificate.n, certificate.agreed, certificate.rows) == (22, 22, 131)
    assert "22 served held-out groups are too few" in certificate.reason


def test_a_group_agrees_and_is_covered_by_the_mean_of_its_rows() -> None:
    pair = [row(True, 0.9), row(False, 0.9), row(True, 0.1)]
    heldout = [replace(e, group=7) for e in pair] + [row(True, 0.9), row(False, 0.1)]
    counts = GroupedRows(heldout).counts([0, 1, 3])
    assert (counts.groups, counts.agreed, counts.rows) == (2, 1.5, 3)
    assert counts.covered == pytest.approx(2 / 3 + 1)
    certificate = judge(heldout)
    assert certificate.agreement_all == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert certificate.heldout == 3


def test_faults_count_as_their_share_of_the_group() -> None:
    heldout = grouped(rows(100, 100), 4)
    heldout[0] = replace(heldout[0], fault="student_malformed", agrees=False)
    assert judge(heldout).faults == 0.25


def test_a_bad_label_of_one_conversation_is_one_bad_case() -> None:
    """Thirty wrong rows of one conversation do not prove that its label goes wrong."""
    good = rows(300, 300, label="a")
    bad = [replace(row(False, label="b"), group=1, input_hash=str(place)) for place in range(30)]
    names = [s.name for s in slices_of([*good, *bad], "label", GATE)]
    assert "b" not in names
    alone = [replace(e, group=None) for e in bad]
    [worst, *_] = slices_of([*good, *alone], "label", GATE)
    assert (worst.name, worst.n, worst.below) == ("b", 30, True)


def test_a_slice_draws_one_row_of_a_group_whatever_their_order() -> None:
    heldout = [
        replace(row(place % 2 == 0), group=place // 2, input_hash=str(place))
        for place in range(400)
    ]
    [one] = slices_of(heldout, "text", GATE)
    [again] = slices_of(heldout[::-1], "text", GATE)
    assert (one.n, one) == (200, again)
    assert 60 < one.agreed < 140


@pytest.mark.slow
@pytest.mark.parametrize(("size", "correlation"), [(5, 0.2), (10, 0.5), (10, 1.0)])
def test_a_student_below_the_threshold_passes_no_more_often_with_many_rows_a_group(
    size: int, correlation: float
) -> None:
    """bench/gate.py has more rounds, up to fifty rows a group."""
    [found] = simulate_groups.wrong_promotions(60, [size], [correlation], by_row_rounds=0)
    assert found["wrong"] * 60 <= stats.binom.ppf(0.99, 60, attempt_alpha(GATE, 1))


@pytest.mark.slow
def test_a_student_that_errs_in_its_largest_groups_passes_no_more_often() -> None:
    """The former rule, each row by itself, promotes many of them: the simulation can fail."""
    [found] = simulate_groups.wrong_promotions(20, [20], [1.0], by_row_rounds=20)
    assert found["by_row"] > 0
    [mixed] = simulate_groups.wrong_promotions(40, [simulate_groups.MIXED], [0.5], by_row_rounds=0)
    for wrong in (found["wrong"], mixed["wrong"]):
        assert wrong * 20 <= stats.binom.ppf(0.99, 20, attempt_alpha(GATE, 1))
