"""When students are promoted, exactly: the distribution of the first row at which a rule promotes.

A rule is given by the maximum number of disagreements with which it promotes at each number of
rows. The rows of a student whose answers agree with probability p come one by one; the probability
that it is promoted by a row follows from the distribution of its disagreements. These numbers are
exact, without Monte Carlo error; simulations of the whole path with cutoffs are in
bench/simulate_path.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import betaincc, betaln

from distill.gate.bounds import Floats, informed_weights, most_missed, spread
from distill.gate.gate import attempt_alpha
from store.jsontext import JsonObject
from store.settings.tasks import GateSettings

LOOKS = 3000  # rows, with a look after each
FIRST_LOOK = 20  # of the rules that have no error budget: a mean of fewer rows means nothing
RETRAINS = 10
REFERENCE = {0.97: 573, 0.98: 244, 0.99: 134}  # rows to promote; threshold 0.95, alpha 0.05

Limits = np.ndarray[Any, np.dtype[np.int64]]  # most disagreements at 1, 2, 3… rows; -1: never yes


# ---- the rules ---------------------------------------------------------------------------------


@cache
def ours(threshold: float, alpha: float, looks: int = LOOKS) -> Limits:
    """The gate's own bound, without calibration rows."""
    return most_missed(_rows(looks), threshold, alpha, spread()[1]).astype(np.int64)


@cache
def ours_informed(threshold: float, alpha: float, agreed: int, missed: int, looks: int) -> Limits:
    """The gate's own bound, after these calibration rows."""
    weights = informed_weights(np.array(agreed), np.array(missed), threshold)
    return most_missed(_rows(looks), threshold, alpha, weights).astype(np.int64)


def one_bet(threshold: float, alpha: float, agreement: float, looks: int = LOOKS) -> Limits:
    """The best single bet of someone who knows the student's agreement: Wald's sequential test."""
    n = _rows(looks)
    won, lost = np.log(agreement / threshold), np.log((1 - agreement) / (1 - threshold))
    limits: Limits = np.maximum(np.floor((-np.log(alpha) - n * won) / (lost - won)), -1).astype(
        np.int64
    )
    return limits


def uniform_mixture(threshold: float, alpha: float, looks: int = LOOKS) -> Limits:
    """All alternatives above the threshold alike: the textbook's beta mixture, in closed form."""

    def log_e(n: Floats, missed: Floats) -> Floats:
        agreed = n - missed
        return np.asarray(
            betaln(agreed + 1, missed + 1)
            + np.log(betaincc(agreed + 1, missed + 1, threshold))
            - np.log1p(-threshold)
            - agreed * np.log(threshold)
            - missed * np.log1p(-threshold)
        )

    return _limits(lambda n, missed: log_e(n, missed) >= -np.log(alpha), threshold, looks)


def clopper_pearson(threshold: float, alpha: float, looks: int = LOOKS) -> Limits:
    """The exact bound for one look, looked at after every row."""
    limits = stats.binom.ppf(alpha, _rows(looks), 1 - threshold) - 1
    exact = stats.binom.cdf(limits + 1, _rows(looks), 1 - threshold) <= alpha
    return np.asarray(np.where(exact, limits + 1, limits), dtype=np.int64)


def plain_mean(threshold: float, looks: int = LOOKS) -> Limits:
    """The mean reaches the threshold; first looked at at FIRST_LOOK."""
    n = _rows(looks)
    limits = np.floor(n * (1 - threshold) + 1e-9).astype(np.int64)
    return np.where(n < FIRST_LOOK, -1, limits)


def _rows(looks: int) -> Floats:
    return np.arange(1, looks + 1, dtype=np.float64)


def _limits(says_yes: Callable[[Floats, Floats], Any], threshold: float, looks: int) -> Limits:
    n = _rows(looks)[:, None]
    missed = np.arange(int(looks * (1 - threshold)) + 2, dtype=np.float64)[None, :]
    with np.errstate(divide="ignore"):
        promoted = says_yes(np.maximum(n, missed), missed) & (missed <= n)
    return np.asarray(promoted.sum(axis=1) - 1)


# ---- results -----------------------------------------------------------------------------------


def promoted_until(limits: Limits, agreement: float) -> Floats:
    """The probability of a promotion within 1, 2, 3… rows."""
    undecided = np.zeros(int(limits.max()) + 2)
    undecided[0] = 1.0
    results, promoted = np.empty(len(limits)), 0.0
    for place, limit in enumerate(limits):
        after = undecided * agreement
        after[1:] += undecided[:-1] * (1 - agreement)
        # more disagreements than any limit allows are left out: they can come back to none of these
        promoted += after[: limit + 1].sum()
        after[: limit + 1] = 0.0
        results[place], undecided = promoted, after
    return results


def median_rows(chances: Floats) -> int | None:
    """The row until which half of the students are promoted; None when it takes more looks."""
    place = int(np.searchsorted(chances, 0.5))
    return place + 1 if place < len(chances) else None


def with_calibration(threshold: float, alpha: float, agreement: float, rows: int) -> Floats:
    """`promoted_until` of the gate's bound, over what so many calibration rows may show."""
    looks = 1200
    total = np.zeros(looks)
    for missed in range(rows + 1):
        chance = float(stats.binom.pmf(missed, rows, 1 - agreement))
        if chance > 1e-4:
            limits = ours_informed(threshold, alpha, rows - missed, missed, looks)
            total += chance * promoted_until(limits, agreement)
    return total


def best_of(limits: Sequence[Limits], agreement: float) -> float:
    """The probability that one of several retrains is promoted, each on rows of its own."""
    return 1 - float(np.prod([1 - promoted_until(each, agreement)[-1] for each in limits]))


# ---- the report --------------------------------------------------------------------------------


def peeking() -> list[JsonObject]:
    """Wrong promotions when every row is looked at: of one student, and of ten retrains."""
    results = []
    for threshold in (0.90, 0.95, 0.98):
        gate = GateSettings(threshold=threshold)
        shared = [ours(threshold, attempt_alpha(gate, k + 1)) for k in range(RETRAINS)]
        for true in (threshold, threshold - 0.02):
            results.append(
                {
                    "threshold": threshold,
                    "true": round(true, 4),
                    "alpha": 0.05,
                    "ours": float(promoted_until(ours(threshold, 0.05), true)[-1]),
                    "ours_retrains": best_of(shared, true),
                    "clopper_pearson": float(
                        promoted_until(clopper_pearson(threshold, 0.05), true)[-1]
                    ),
                    "plain_mean": float(promoted_until(plain_mean(threshold), true)[-1]),
                }
            )
    return results


def best_of_ten(n: int) -> list[JsonObject]:
    """Wrong promotions when the best of ten retrains is taken, each looked at once, at n rows."""
    threshold, results = 0.95, []
    gate = GateSettings(threshold=threshold)
    once = {
        "ours": [ours(threshold, attempt_alpha(gate, k + 1))[n - 1] for k in range(RETRAINS)],
        "clopper_pearson": [clopper_pearson(threshold, 0.05)[n - 1]] * RETRAINS,
        "plain_mean": [plain_mean(threshold)[n - 1]] * RETRAINS,
    }
    for true in (threshold, threshold - 0.02):
        row: JsonObject = {"threshold": threshold, "true": true, "n": n, "alpha": 0.05}
        for name, limits in once.items():
            row[name] = 1 - float(np.prod(1 - stats.binom.cdf(limits, n, 1 - true)))
        results.append(row)
    return results


def rows_to_promote(calibration: int) -> list[JsonObject]:
    """Median number of rows until a promotion, threshold 0.95, alpha 0.05, every row looked at."""
    results = []
    for true, reference in REFERENCE.items():
        rules = {
            "uniform_mixture": uniform_mixture(0.95, 0.05),
            "ours": ours(0.95, 0.05),
            "one_bet_that_knows": one_bet(0.95, 0.05, true),
        }
        medians = {name: median_rows(promoted_until(rule, true)) for name, rule in rules.items()}
        informed = median_rows(with_calibration(0.95, 0.05, true, calibration))
        results.append({"true": true, "reference": reference, **medians, "ours_informed": informed})
    return results


def one_look(n: int) -> list[JsonObject]:
    """Good students that are promoted when n rows are looked at once: what peeking costs."""
    results = []
    for true in REFERENCE:
        rules = {
            "clopper_pearson": clopper_pearson(0.95, 0.05),
            "uniform_mixture": uniform_mixture(0.95, 0.05),
            "ours": ours(0.95, 0.05),
            "one_bet_that_knows": one_bet(0.95, 0.05, true),
        }
        powers = {
            name: float(stats.binom.cdf(rule[n - 1], n, 1 - true)) for name, rule in rules.items()
        }
        results.append({"true": true, "n": n, **powers})
    return results


def coverage() -> list[JsonObject]:
    """How often the lower bound is right at every one of the looks, by the true agreement.

    It is wrong at some look exactly if the e-value against the truth itself reaches 1 / alpha.
    """
    return [
        {
            "true": true,
            "alpha": 0.05,
            "coverage": 1 - float(promoted_until(ours(true, 0.05), true)[-1]),
        }
        for true in (0.80, 0.90, 0.95, 0.98, 0.99)
    ]
