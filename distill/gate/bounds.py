"""Anytime-valid bounds of a mean: one may look after each row, and stop at any.

A student's agreement p is tested against the hypothesis p ≤ p0 by betting. The stake begins at 1.
Before each observation a share u of it is put on "agrees", at the odds that are fair when p = p0:

    one that agrees multiplies the stake by 1 - u + u / p0, any other by 1 - u

An observation is a group of rows that belong together, with the mean agreement x of its rows, from
0 to 1. It multiplies the stake by

    (1 - u + u / p0)^x (1 - u)^(1 - x)

which is at most 1 - u + u x / p0, by the inequality of the arithmetic and the geometric mean with
weights x and 1 - x. The expectation of the latter is at most 1 where that of x is at most p0, given
all groups before, whatever the rows of one group have to do with each other and however many there
are. So the sum of the groups' agreements takes the place of the number of rows that agree.

While the hypothesis is true no such game is better than fair, so the stake is a nonnegative
supermartingale, an *e-value* at every moment, and the chance that it ever reaches 1 / alpha is at
most alpha (Ville's inequality). To bet u is to take the odds of the alternative q = p0 + (1-p0) u,
one point of (p0, 1]. The best u is unknown, so the stake is spread over many: a mixture, here the
nodes of a Gauss-Jacobi rule for a beta density of u. It approximates the beta mixture; as a finite
mixture of fixed bets it is itself an e-value, without any error of approximation.

For a fixed spread each factor falls as p0 grows, and so does the stake: the rejected hypotheses are
exactly those below one number, the lower bound. This needs a spread over u and not over q.

The spread Beta(4, 2) was chosen by the exact distribution of the number of rows until a promotion,
at thresholds 0.90, 0.95 and 0.98 (`bench/gate.py`): most promoted students err between a tenth and
half as often as the threshold tolerates, which is u from 0.5 to 0.9.

Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", Journal of the
Royal Statistical Society B 86 (2024, online 2023), https://doi.org/10.1093/jrsssb/qkad009
Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of Mathematical
Statistics 41 (1970), https://doi.org/10.1214/aoms/1177696786 (mixtures of likelihood ratios)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

# The prior of the bets, as a certificate stores it: empty (the default spread), or the result on
# other rows: [rows that agreed, rows that did not, the p0 that the bets are meant for].
Prior = Sequence[float]
Floats = np.ndarray[Any, np.dtype[np.float64]]

BETS = (4.0, 2.0)  # beta density of the bets on agreement
BETS_AGAINST = (1.0, 5.0)  # of the bets on disagreement, for the upper bound
BETS_ON_SCORES = (0.5, 0.5)  # of the bets on scores of any spread
NODES = 64
NO_SCORE = 1e-9  # a mean below this has no lower bound but 0
TRUST = 0.5  # weight of a row of the prior: the cutoff was chosen on the same rows

_HALVINGS = 40  # of an interval within (0, 1): to 1e-12, well above the noise of doubles


def log_e_value(agreed: float, n: int, p0: float, prior: Prior = ()) -> float:
    """Natural logarithm of the e-value against "the agreement is at most p0".

    `agreed`: the sum of the agreements of n groups.

    Its expectation under the hypothesis is at most 1 at any stopping time. 0 < p0 < 1. Raises
    ValueError on impossible counts.
    """
    _check(agreed, n)
    if not 0 < p0 < 1:
        raise ValueError(f"p0 is {p0:g}, not between 0 and 1")
    return float(log_e_values(np.array([agreed]), np.array([n]), p0, prior)[0])


def log_e_values(agreed: Floats, n: Floats, p0: float, prior: Prior = ()) -> Floats:
    """`log_e_value` for many counts at once: takes arrays of one shape and returns one."""
    bets, log_weights = spread(prior)
    won, lost = outcomes(bets, p0)
    missed = np.subtract(n, agreed)
    stakes = log_weights + np.multiply.outer(agreed, won) + np.multiply.outer(missed, lost)
    return log_sum(stakes)


def lower_bound(agreed: float, n: float, alpha: float, prior: Prior = ()) -> float:
    """The agreement is at least this, with an error probability of at most alpha over all looks.

    The largest p0 below which every hypothesis is rejected; 0 without a row that agrees.
    """
    _check(agreed, n)
    if agreed == 0:
        return 0.0
    return _bound(agreed, n - agreed, spread(prior), alpha)


def fewest(p0: float, alpha: float, prior: Prior = ()) -> int:
    """The fewest groups whose lower bound reaches p0, if every one of them agrees."""
    if p0 <= 0:
        return 0
    n = max(1, math.floor(math.log(alpha) / math.log(p0)))  # what the boldest bet needs
    while log_e_value(n, n, p0, prior) < -math.log(alpha):
        n += 1
    return n


def most_missed(n: Floats, p0: float, alpha: float, log_weights: Floats) -> Floats:
    """The most disagreements with which n rows reject "at most p0"; -1 where even 0 do not.

    The inverse of `lower_bound`, for many n at once. `log_weights`: of the bets (`spread`,
    `informed_weights`), the same for all or one row for each n. By bisection, since the e-value
    falls with each disagreement.
    """
    won, lost = outcomes(_nodes(*BETS)[0], p0)
    few, many = np.full(len(n), -1.0), np.asarray(n) + 1.0  # `few` reject, `many` do not
    while np.any(many - few > 1):
        middle = np.floor((few + many) / 2)
        missed = np.maximum(middle, 0)
        stakes = np.multiply.outer(n - missed, won) + np.multiply.outer(missed, lost)
        rejects = log_sum(log_weights + stakes) >= -math.log(alpha)
        few, many = np.where(rejects, middle, few), np.where(rejects, many, middle)
    return few


def upper_bound(agreed: float, n: int, alpha: float) -> float:
    """The agreement is at most this, with an error probability of at most alpha over all looks."""
    _check(agreed, n)
    if agreed == n:
        return 1.0
    return 1 - _bound(n - agreed, agreed, _nodes(*BETS_AGAINST), alpha)


def betting_lower_bound(scores: Sequence[float], alpha: float) -> float:
    """The mean of scores from 0 to 1 is at least this, with an error of at most alpha.

    The same game with a row's score x: the stake is multiplied by 1 - u + u x / m to test the mean
    m. The order of the scores does not matter. Raises ValueError on scores outside of 0..1.
    """
    values, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    if values.size and not (values[0] >= 0 and values[-1] <= 1):
        raise ValueError("scores must lie between 0 and 1")
    mean = float(np.average(values, weights=counts)) if values.size else 0.0
    if mean < NO_SCORE:
        return 0.0
    bets, log_weights = _nodes(*BETS_ON_SCORES)

    def log_stake(tested: float) -> float:
        factors = np.log1p(np.multiply.outer(bets, values / tested - 1))
        return float(log_sum(log_weights + factors @ counts))

    return _smallest_kept(log_stake, mean, alpha)


def bias_lower_bound(pairs: Sequence[tuple[bool, bool]], alpha: float) -> float:
    """The mean of (people - judge) is at least this, -1 to 1; -1 without a pair.

    A pair is (the judge calls the answer good, people call it good).
    """
    halves = [(people - judge + 1) / 2 for judge, people in pairs]
    return 2 * betting_lower_bound(halves, alpha) - 1


def prediction_powered_lower_bound(
    agreed: float, n: float, bias_low: float, alpha: float, prior: Prior = ()
) -> float:
    """The share of answers that people would call good is at least this.

    The judge's share over many answers (`agreed` of `n`), corrected by how far people were from the
    judge on the few that both have seen: each has a bound of its own at alpha / 2, and the two are
    added. `bias_low`: bias_lower_bound(pairs, alpha / 2). The sum holds however bad the judge is,
    if the pairs are sampled like the answers. The estimate of Rogan and
    Gladen, (share + specificity - 1) / (sensitivity + specificity - 1), has the same aim, but it
    divides by a difference that few pairs estimate badly, and it is no bound.

    Angelopoulos, Bates, Fannjiang, Jordan and Zrnic, "Prediction-powered inference", Science 382
    (2023), https://doi.org/10.1126/science.adi6000; Rogan and Gladen, "Estimating prevalence from
    the results of a screening test", American Journal of Epidemiology 107 (1978),
    https://doi.org/10.1093/oxfordjournals.aje.a112510
    """
    return min(1.0, max(0.0, lower_bound(agreed, n, alpha / 2, prior) + bias_low))


# ---- the spread of the bets --------------------------------------------------------------------


def spread(prior: Prior = ()) -> tuple[Floats, Floats]:
    """The bets and the logarithms of their weights, which add up to 1.

    With a prior they are the posterior weights after its rows, each counted by TRUST: the bets then
    favour the agreement that was seen on other rows.
    """
    bets, log_weights = _nodes(*BETS)
    if not prior:
        return bets, log_weights
    agreed, missed, p0 = prior
    return bets, informed_weights(np.array(agreed), np.array(missed), p0)


def informed_weights(agreed: Floats, missed: Floats, p0: float) -> Floats:
    """Logarithms of the weights after these rows, with one more axis: that of the bets."""
    bets, log_weights = _nodes(*BETS)
    won, lost = outcomes(bets, p0)
    seen = np.multiply.outer(agreed, won) + np.multiply.outer(missed, lost)
    weighted = log_weights + TRUST * seen
    return np.asarray(weighted - log_sum(weighted)[..., None], dtype=np.float64)


def outcomes(bets: Floats, p0: float) -> tuple[Floats, Floats]:
    """The log factors of each bet: after a row that agrees, and after one that does not."""
    return np.log1p(bets * ((1 - p0) / p0)), np.log1p(-bets)


def log_sum(logarithms: Floats) -> Floats:
    """log(sum(exp(x))) along the last axis."""
    largest = logarithms.max(axis=-1)
    return np.asarray(largest + np.log(np.exp(logarithms - largest[..., None]).sum(axis=-1)))


@cache
def _nodes(a: float, b: float) -> tuple[Floats, Floats]:
    """Bets with weights in place of a Beta(a, b) density: the nodes of its Gauss-Jacobi rule."""
    from scipy.special import roots_jacobi  # noqa: PLC0415 - slow to import

    places, weights = roots_jacobi(NODES, b - 1, a - 1)
    return (places + 1) / 2, np.log(weights / weights.sum())


def _bound(
    hits: float, misses: float, bets_and_weights: tuple[Floats, Floats], alpha: float
) -> float:
    """The lower bound of the share of hits."""
    bets, log_weights = bets_and_weights

    def log_stake(p0: float) -> float:
        won, lost = outcomes(bets, p0)
        return float(log_sum(log_weights + hits * won + misses * lost))

    return _smallest_kept(log_stake, hits / (hits + misses), alpha)


def _smallest_kept(log_stake: Callable[[float], float], mean: float, alpha: float) -> float:
    """The smallest p0 that is not rejected: below the mean, where the stake is at most 1."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha:g}, not between 0 and 1")
    enough = -math.log(alpha)
    rejected, kept = 0.0, mean
    for _ in range(_HALVINGS):
        middle = (rejected + kept) / 2
        if log_stake(middle) >= enough:
            rejected = middle
        else:
            kept = middle
    return rejected


def _check(agreed: float, n: float) -> None:
    if not 0 <= agreed <= n:
        raise ValueError(f"{agreed:g} of {n} groups cannot agree")
