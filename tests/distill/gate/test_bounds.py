"""Anytime-valid bounds: exact expectations by enumeration, and properties."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import betaln

from distill.gate.bounds import (
    BETS,
    Prior,
    betting_lower_bound,
    bias_lower_bound,
    informed_weights,
    log_e_value,
    log_e_values,
    lower_bound,
    most_missed,
    prediction_powered_lower_bound,
    spread,
    upper_bound,
)

SHARES = st.sampled_from([0.3, 0.8, 0.9, 0.95, 0.98])
ALPHAS = st.sampled_from([0.001, 0.025, 0.05, 0.2])
PRIORS = st.sampled_from([(), (196.0, 4.0, 0.95), (30.0, 20.0, 0.9), (0.0, 50.0, 0.95)])


# ---- the e-value -------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 40), SHARES, st.sampled_from([0.01, 0.5, 0.99]), PRIORS)
def test_the_e_value_has_expectation_at_most_one_under_the_hypothesis(
    n: int, p0: float, part: float, prior: Prior
) -> None:
    agreed = np.arange(n + 1)
    chances = stats.binom.pmf(agreed, n, part * p0)
    e_values = np.exp(log_e_values(agreed, np.full(n + 1, n), p0, prior))
    assert chances @ e_values <= 1 + 1e-9
    at_p0 = stats.binom.pmf(agreed, n, p0) @ e_values
    assert at_p0 == pytest.approx(1.0, abs=1e-9)  # no part of the stake is given away


@settings(deadline=None)
@given(st.integers(0, 3000), st.data(), SHARES, PRIORS)
def test_no_row_multiplies_the_stake_beyond_fair(
    n: int, data: st.DataObject, p0: float, prior: Prior
) -> None:
    agreed = data.draw(st.integers(0, n))
    now = log_e_value(agreed, n, p0, prior)
    won = log_e_value(agreed + 1, n + 1, p0, prior) - now
    lost = log_e_value(agreed, n + 1, p0, prior) - now
    assert won > 0 > lost
    assert p0 * math.exp(won) + (1 - p0) * math.exp(lost) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("agreed", "n", "p0"),
    [
        (0, 0, 0.95),
        (59, 59, 0.95),
        (198, 200, 0.95),
        (960, 1000, 0.95),
        (900, 1000, 0.95),
        (9900, 10_000, 0.98),
        (8, 10, 0.5),
    ],
)
def test_the_e_value_approximates_the_beta_mixture(agreed: int, n: int, p0: float) -> None:
    """The Gauss-Jacobi nodes agree with adaptive integration over all bets."""
    a, b = BETS

    def log_stake(bet: float) -> float:
        stake = agreed * math.log1p(bet * (1 - p0) / p0) + (n - agreed) * math.log1p(-bet)
        return stake + (a - 1) * math.log(bet) + (b - 1) * math.log1p(-bet) - betaln(a, b)

    best = max(np.linspace(0.001, 0.999, 999), key=log_stake)
    top = log_stake(best)
    whole, _ = integrate.quad(
        lambda bet: math.exp(log_stake(bet) - top),
        *(0, 1),
        points=[best],
        limit=500,
        epsabs=0,
        epsrel=1e-11,
    )
    assert log_e_value(agreed, n, p0) == pytest.approx(math.log(whole) + top, abs=1e-9)


@pytest.mark.parametrize(
    ("alpha", "p0", "prior"),
    [
        (0.05, 0.8, ()),
        (0.2, 0.6, ()),
        (0.05, 0.8, (45.0, 5.0, 0.8)),
        (0.2, 0.5, (9.0, 1.0, 0.5)),
    ],
)
def test_looking_after_each_row_keeps_the_error_rate(alpha: float, p0: float, prior: Prior) -> None:
    """Exactly, over all ways that 400 rows may go, of a student that is just at the threshold."""
    undecided, promoted = {0: 1.0}, 0.0
    for n in range(1, 401):
        after: dict[int, float] = {}
        for missed, chance in undecided.items():
            after[missed] = after.get(missed, 0.0) + chance * p0
            after[missed + 1] = after.get(missed + 1, 0.0) + chance * (1 - p0)
        agreed = np.array([n - missed for missed in after])
        yes = log_e_values(agreed, np.full(len(agreed), n), p0, prior) >= -math.log(alpha)
        promoted += sum(c for c, y in zip(after.values(), yes, strict=True) if y)
        undecided = {m: c for (m, c), y in zip(after.items(), yes, strict=True) if not y}
    assert 0.6 * alpha < promoted <= alpha  # and the budget is used, not wasted


def test_a_prior_from_other_rows_makes_the_e_value_grow_faster() -> None:
    good = [98.0, 2.0, 0.95]
    assert log_e_value(196, 200, 0.95, good) > log_e_value(196, 200, 0.95)
    assert sum(np.exp(spread(good)[1])) == pytest.approx(1.0)
    assert log_e_value(196, 200, 0.95, (0.0, 0.0, 0.95)) == pytest.approx(
        log_e_value(196, 200, 0.95), abs=1e-12
    )


# ---- the bounds of a share ---------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 3000), st.data(), ALPHAS, PRIORS)
@pytest.mark.slow
def test_the_lower_bound_is_monotone_and_below_the_mean(
    n: int, data: st.DataObject, alpha: float, prior: Prior
) -> None:
    agreed = data.draw(st.integers(0, n))
    bound = lower_bound(agreed, n, alpha, prior)
    assert 0.0 <= bound <= agreed / n
    more = lower_bound(agreed + 1, n + 1, alpha, prior)  # one more, and it agrees
    assert more > bound or more < 1e-6
    assert lower_bound(agreed, n + 1, alpha, prior) <= bound  # one more, and it does not
    assert lower_bound(agreed, n, alpha / 10, prior) <= bound  # more confidence
    if agreed < n:
        assert lower_bound(agreed + 1, n, alpha, prior) >= more


@settings(deadline=None)
@given(st.integers(1, 3000), st.data(), ALPHAS, PRIORS)
def test_the_lower_bound_is_where_the_e_value_stops_rejecting(
    n: int, data: st.DataObject, alpha: float, prior: Prior
) -> None:
    agreed = data.draw(st.integers((n + 9) // 10, n))
    bound = lower_bound(agreed, n, alpha, prior)
    assert log_e_value(agreed, n, bound, prior) == pytest.approx(-math.log(alpha), abs=1e-4)
    for part in (0.3, 0.9, 0.999):  # everything below is rejected, nothing above
        assert log_e_value(agreed, n, part * bound, prior) > -math.log(alpha)
        assert log_e_value(agreed, n, bound + part * (1 - bound), prior) < -math.log(alpha)


@settings(deadline=None)
@given(st.integers(0, 400), SHARES, ALPHAS)
def test_most_missed_is_the_inverse_of_the_lower_bound(n: int, p0: float, alpha: float) -> None:
    [most] = most_missed(np.array([float(n)]), p0, alpha, spread()[1]).astype(int)
    if most >= 0:
        assert lower_bound(n - most, n, alpha) >= p0 - 1e-11
    assert most == n or lower_bound(n - most - 1, n, alpha) < p0


def test_vectorised_e_values_equal_single_ones() -> None:
    n, agreed, missed = np.array([100.0, 300.0]), np.array([50.0, 90.0]), np.array([0.0, 3.0])
    weights = informed_weights(agreed, missed, 0.95)
    both = most_missed(n, 0.95, 0.05, weights)
    alone = [most_missed(n[[k]], 0.95, 0.05, weights[k])[0] for k in range(2)]
    assert list(both) == alone


@settings(deadline=None)
@given(st.integers(1, 500), st.data(), ALPHAS)
@pytest.mark.slow
def test_the_upper_bound_lies_above_and_falls(n: int, data: st.DataObject, alpha: float) -> None:
    agreed = data.draw(st.integers(0, n))
    bound = upper_bound(agreed, n, alpha)
    assert agreed / n <= bound <= 1.0
    assert upper_bound(agreed, n + 1, alpha) < bound or agreed == n
    assert upper_bound(agreed + 1, n + 1, alpha) >= bound
    assert upper_bound(agreed, n, alpha / 10) >= bound
    assert lower_bound(agreed, n, alpha) <= agreed / n <= bound


@cache
def _worth(n: int) -> list[tuple[int, ...]]:
    return list(itertools.product([0, 1], repeat=n))


@pytest.mark.parametrize("p", [0.5, 0.8, 0.9])
def test_the_upper_bound_keeps_the_error_rate(p: float) -> None:
    """Over all 2^12 ways that twelve rows may go, looked at after each."""
    wrong = 0.0
    bounds = {(a, n): upper_bound(a, n, 0.1) for n in range(1, 13) for a in range(n + 1)}
    for rows in _worth(12):
        agreed = itertools.accumulate(rows)
        if any(bounds[a, n] < p for n, a in enumerate(agreed, 1)):
            wrong += p ** sum(rows) * (1 - p) ** (12 - sum(rows))
    assert wrong <= 0.1


@pytest.mark.parametrize(("agreed", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(agreed: int, n: int) -> None:
    for refused in (
        lambda: lower_bound(agreed, n, 0.05),
        lambda: upper_bound(agreed, n, 0.05),
        lambda: log_e_value(agreed, n, 0.9),
    ):
        with pytest.raises(ValueError, match="cannot agree"):
            refused()


def test_without_rows_the_bounds_are_trivial() -> None:
    assert (lower_bound(0, 0, 0.05), upper_bound(0, 0, 0.05)) == (0.0, 1.0)
    assert log_e_value(0, 0, 0.95) == pytest.approx(0.0, abs=1e-12)
    assert betting_lower_bound([], 0.05) == 0.0
    assert bias_lower_bound([], 0.05) == -1.0


@pytest.mark.parametrize("p0", [0.0, 1.0, 1.5])
def test_a_tested_value_outside_of_0_and_1_is_refused(p0: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        log_e_value(3, 4, p0)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_an_error_probability_of_0_or_1_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        lower_bound(3, 4, alpha)


# ---- scores, and judges ------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), ALPHAS)
@pytest.mark.slow
def test_the_bound_of_scores_lies_below_their_mean_in_any_order(
    scores: list[float], alpha: float
) -> None:
    bound = betting_lower_bound(scores, alpha)
    assert 0.0 <= bound <= np.mean(scores) + 1e-12
    assert betting_lower_bound(scores[::-1], alpha) == bound
    assert betting_lower_bound([*scores, 1.0], alpha) >= bound - 1e-12
    assert betting_lower_bound([min(1.0, s + 0.1) for s in scores], alpha) >= bound - 1e-12


def test_narrow_scores_have_a_tighter_bound_than_wide_ones() -> None:
    narrow, wide = [0.85, 0.95] * 100, [1.0] * 180 + [0.0] * 20
    assert np.mean(narrow) == pytest.approx(np.mean(wide))
    assert betting_lower_bound(narrow, 0.05) > betting_lower_bound(wide, 0.05) + 0.02


@pytest.mark.parametrize("scores", [[-0.1, 0.5], [0.5, 1.1], [0.5, math.nan]])
def test_scores_outside_of_0_and_1_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        betting_lower_bound(scores, 0.05)


@pytest.mark.parametrize("mean", [0.4, 0.9])
def test_the_bound_of_scores_keeps_the_error_rate(mean: float) -> None:
    """Scores 0, 1/2 and 1: over all 3^7 ways that seven may go, looked at after each."""
    chances = {0.0: (1 - mean) * 0.8, 0.5: 0.4 * (1 - mean), 1.0: 1 - 1.2 * (1 - mean)}
    assert sum(s * c for s, c in chances.items()) == pytest.approx(mean)
    bounds: dict[tuple[float, ...], float] = {}
    wrong = 0.0
    for scores in itertools.product(chances, repeat=7):
        for n in range(1, 8):
            seen = tuple(sorted(scores[:n]))
            if seen not in bounds:
                bounds[seen] = betting_lower_bound(seen, 0.2)
            if bounds[seen] > mean:
                wrong += math.prod(chances[s] for s in scores)
                break
    assert wrong <= 0.2


def powered(judged: list[bool], pairs: list[tuple[bool, bool]], alpha: float) -> float:
    bias_low = bias_lower_bound(pairs, alpha / 2)
    return prediction_powered_lower_bound(sum(judged), len(judged), bias_low, alpha)


def test_a_judge_that_is_right_costs_little_with_many_pairs() -> None:
    judged = [True] * 990 + [False] * 10
    plain = lower_bound(990, 1000, 0.025)
    few, many = (powered(judged, [(True, True)] * n, 0.05) for n in (50, 5000))
    assert few < many < plain
    assert plain - many < 0.002
    assert powered(judged, [], 0.05) == 0.0


def test_a_judge_that_is_too_kind_is_corrected() -> None:
    judged = [True] * 1000
    pairs = [(True, True)] * 800 + [(True, False)] * 200
    assert powered(judged, pairs, 0.05) < 0.8
    assert powered(judged, pairs, 0.05) > 0.7


def test_a_judge_that_is_too_strict_is_corrected_too() -> None:
    judged = [True] * 900 + [False] * 100
    pairs = [(True, True)] * 900 + [(False, True)] * 100
    assert lower_bound(900, 1000, 0.05) < 0.9
    assert powered(judged, pairs, 0.05) > 0.9


def test_the_corrected_bound_keeps_the_error_rate() -> None:
    rng = np.random.default_rng(20240610)
    wrong, rounds = 0, 150
    for _ in range(rounds):
        people = rng.random(260) < 0.85
        judge = rng.random(260) < np.where(people, 0.98, 0.5)
        pairs = list(zip(judge[:60].tolist(), people[:60].tolist(), strict=True))
        wrong += powered(judge[60:].tolist(), pairs, 0.1) > 0.85
    assert wrong <= stats.binom.ppf(0.975, rounds, 0.1)
