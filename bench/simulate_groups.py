"""Wrong promotions where rows belong together: the gate's whole path with groups of rows.

Each group draws its own probability of agreement from a beta density with the student's agreement
as its mean and the intra-group correlation as its spread: at 0 all groups are alike, at 1 all rows
of a group agree or none does. The rows of a group share most of their confidence, so that a cutoff
takes or leaves groups as a whole. `by_row` is the same gate with each row as evidence of its own:
the former rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from bench.simulate_path import GATE, judge
from distill.gate.cutoffs import choose_cutoffs
from distill.gate.gate import attempt_alpha
from store.jsontext import JsonObject
from store.records import Evaluation

SIZES = (1, 2, 5, 20, 50)
CORRELATIONS = (0.0, 0.2, 0.5, 1.0)
BELOW = 0.949  # the agreement of a student that must not be promoted, threshold 0.95
CALIBRATION, HELDOUT = 100, 300  # groups
LEVELS = 10  # of confidence
BY_ROW_ROUNDS = 40  # of the former rule, which fails at once


def rows(rng: np.random.Generator, groups: int, size: int, correlation: float) -> list[Evaluation]:
    """The rows of so many groups, each of this size, that a student has answered."""
    if correlation == 0:
        chances = np.full(groups, BELOW)
    elif correlation == 1:
        chances = (rng.random(groups) < BELOW).astype(np.float64)
    else:
        spread = 1 / correlation - 1
        chances = rng.beta(BELOW * spread, (1 - BELOW) * spread, groups)
    agrees = rng.random((groups, size)) < chances[:, None]
    own = rng.integers(0, LEVELS, (groups, size))
    shared = rng.integers(0, LEVELS, groups)
    levels = np.where(rng.random((groups, size)) < 0.8, shared[:, None], own)
    return [
        Evaluation(
            run_id="run",
            input_hash=f"{group}/{place}",
            split="heldout",
            scorer="exact",
            score=float(agrees[group, place]),
            agrees=bool(agrees[group, place]),
            teacher_output="a",
            student_output="a",
            confidence=float(levels[group, place] + 1) / LEVELS,
            latency_ms=1.0,
            fingerprint="f",
            group=group,
        )
        for group in range(groups)
        for place in range(size)
    ]


def promoted(calibration: Sequence[Evaluation], heldout: Sequence[Evaluation], n: int) -> bool:
    """Whether the gate promotes this student. `n`: held-out units of evidence."""
    cutoffs = choose_cutoffs(calibration, GATE, heldout=n, alpha=attempt_alpha(GATE, 1))
    return judge(heldout, cutoffs).passed


def wrong_promotions(rounds: int) -> list[JsonObject]:
    """How often a student just below the threshold is promoted, with an exact interval."""
    results = []
    for size in SIZES:
        for correlation in CORRELATIONS:
            rng = np.random.default_rng([20241130, size, int(10 * correlation)])
            wrong = by_row = 0
            few = min(rounds, BY_ROW_ROUNDS)
            for number in range(rounds):
                calibration = rows(rng, CALIBRATION, size, correlation)
                heldout = rows(rng, HELDOUT, size, correlation)
                wrong += promoted(calibration, heldout, HELDOUT)
                if number < few:
                    by_row += promoted(_alone(calibration), _alone(heldout), len(heldout))
            low, high = stats.binomtest(wrong, rounds).proportion_ci()
            results.append(
                {
                    "size": size,
                    "correlation": correlation,
                    "alpha": attempt_alpha(GATE, 1),
                    "rounds": rounds,
                    "wrong": wrong / rounds,
                    "low": float(low),
                    "high": float(high),
                    "by_row": by_row / few,
                }
            )
    return results


def _alone(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    return [replace(e, group=None) for e in evaluations]
