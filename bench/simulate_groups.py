"""Wrong promotions where rows belong together: the gate's whole path with groups of rows.

Each group draws its own probability of agreement from a beta density with the student's agreement
as its mean and the intra-group correlation as its spread: at 0 all groups are alike, at 1 all rows
of a group agree or none does. The rows of a group share most of their confidence, so that a cutoff
takes or leaves groups as a whole. Where sizes are mixed, the largest groups are those that the
student is worst at. `by_row` is the same gate with each row as evidence of its own: the former
rule. All rows that differ in nothing are one object, so that the time goes into the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from bench.simulate_path import GATE, judge
from distill.gate.cutoffs import choose_cutoffs
from distill.gate.gate import attempt_alpha
from store.jsontext import JsonObject
from store.records import Evaluation

MIXED = 0  # sizes from 1 to 50
SIZES = (1, 2, 5, 20, 50, MIXED)
CORRELATIONS = (0.0, 0.2, 0.5, 0.8, 1.0)
LARGEST = 50
BELOW = 0.949  # the agreement of a student that must not be promoted, threshold 0.95
CALIBRATION, HELDOUT = 100, 300  # groups
LEVELS = 10  # of confidence
SHARED = 0.8  # of the rows have the confidence of their group
BY_ROW_ROUNDS = 40  # of the former rule, which fails at once

Rows = Any  # array of Evaluation


def _drawn(
    rng: np.random.Generator, groups: int, size: int, correlation: float
) -> tuple[Any, Any, Any]:
    """The group, the level of confidence and the agreement of each row of so many groups."""
    if correlation == 0:
        chances = np.full(groups, BELOW)
    elif correlation == 1:
        chances = (rng.random(groups) < BELOW).astype(np.float64)
    else:
        spread = 1 / correlation - 1
        chances = rng.beta(BELOW * spread, (1 - BELOW) * spread, groups)
    if size == MIXED:
        sizes = rng.integers(1, LARGEST, groups, endpoint=True)
        sizes = np.sort(sizes)[::-1][np.argsort(np.argsort(chances))]
    else:
        sizes = np.full(groups, size)
    group = np.repeat(np.arange(groups), sizes)
    agrees = rng.random(len(group)) < chances[group]
    shared = rng.integers(0, LEVELS, groups)[group]
    own = rng.integers(0, LEVELS, len(group))
    levels = np.where(rng.random(len(group)) < SHARED, shared, own)
    return group, levels, agrees.astype(np.int64)


def _pool(groups: int, *, alone: bool = False) -> Rows:
    """Every row that there can be, by group, level of confidence and agreement."""
    pool = np.empty((groups, LEVELS, 2), dtype=object)
    for group, level, agrees in np.ndindex(pool.shape):
        pool[group, level, agrees] = Evaluation(
            run_id="run",
            input_hash=str(group),
            split="heldout",
            scorer="exact",
            score=float(agrees),
            agrees=bool(agrees),
            teacher_output="a",
            student_output="a",
            confidence=(level + 1) / LEVELS,
            latency_ms=1.0,
            fingerprint="f",
            group=None if alone else group,
        )
    return pool


def promoted(calibration: Sequence[Evaluation], heldout: Sequence[Evaluation], n: int) -> bool:
    """Whether the gate promotes this student. `n`: held-out units of evidence."""
    cutoffs = choose_cutoffs(calibration, GATE, heldout=n, alpha=attempt_alpha(GATE, 1))
    return judge(heldout, cutoffs).passed


def wrong_promotions(
    rounds: int,
    sizes: Sequence[int] = SIZES,
    correlations: Sequence[float] = CORRELATIONS,
    *,
    by_row_rounds: int = BY_ROW_ROUNDS,
) -> list[JsonObject]:
    """How often a student just below the threshold is promoted, with an exact interval."""
    pool, alone = _pool(HELDOUT), _pool(HELDOUT, alone=True)
    results = []
    for size in sizes:
        for correlation in correlations:
            rng = np.random.default_rng([20241130, size, int(10 * correlation)])
            wrong = by_row = 0
            few = min(rounds, by_row_rounds)
            for number in range(rounds):
                calibration = _drawn(rng, CALIBRATION, size, correlation)
                heldout = _drawn(rng, HELDOUT, size, correlation)
                wrong += promoted(list(pool[calibration]), list(pool[heldout]), HELDOUT)
                if number < few:
                    by_row += promoted(
                        list(alone[calibration]), list(alone[heldout]), len(heldout[0])
                    )
            low, high = stats.binomtest(wrong, rounds).proportion_ci()
            results.append(
                {
                    "size": size or f"1 to {LARGEST}",
                    "correlation": correlation,
                    "alpha": attempt_alpha(GATE, 1),
                    "rounds": rounds,
                    "wrong": wrong / rounds,
                    "low": float(low),
                    "high": float(high),
                    "by_row": by_row / few if few else None,
                }
            )
    return results
