"""The gate's promise, by simulation: the choice of a cutoff and the certificate together."""

from __future__ import annotations

import random

import numpy as np
import pytest
from gate_samples import GATE, judge, row
from scipy import stats

from distill.gate import choose_cutoff
from store.verdicts import Evaluation


def simulate(rng: random.Random, n: int, agreement: float, informative: float) -> list[Evaluation]:
    """A student whose agreement is `agreement`, and depends on its confidence by `informative`."""
    found = []
    for _ in range(n):
        u = rng.random()
        chance = min(1.0, max(0.0, agreement + informative * (u - 0.5)))
        found.append(row(rng.random() < chance, u - 1.0))
    return found


def served_agreement(cutoff: float | None, agreement: float, informative: float) -> float:
    """The true agreement of what such a student serves at or above a cutoff."""
    lowest = 0.0 if cutoff is None else cutoff + 1.0
    u = np.linspace(lowest, 1.0, 2001)
    return float(np.clip(agreement + informative * (u - 0.5), 0.0, 1.0).mean())


@pytest.mark.parametrize(
    ("agreement", "informative", "calibration", "heldout"),
    [
        (0.949, 0.0, 150, 250),
        (0.949, 0.0, 40, 120),
        (0.93, 0.04, 100, 200),
        (0.92, 0.1, 60, 200),
        (0.85, 0.2, 150, 250),
    ],
)
def test_students_below_the_threshold_are_promoted_less_often_than_stated(
    agreement: float, informative: float, calibration: int, heldout: int
) -> None:
    """With the choice of the cutoff in it: what is certified is what would be served."""
    rng = random.Random(20240607)
    rounds, wrong = 250, 0
    for _ in range(rounds):
        chosen = choose_cutoff(
            simulate(rng, calibration, agreement, informative), GATE, heldout=heldout
        )
        certificate = judge(simulate(rng, heldout, agreement, informative), chosen)
        truth = served_agreement(chosen.value, agreement, informative)
        wrong += certificate.passed and truth < GATE.threshold
    # at most 5 % in the long run; in 250 rounds that is at most 19 with 97.5 % certainty
    assert wrong <= stats.binom.ppf(0.975, rounds, 0.05)


def test_good_students_are_promoted() -> None:
    rng = random.Random(20240608)
    passed = 0
    for _ in range(40):
        chosen = choose_cutoff(simulate(rng, 150, 0.98, 0.03), GATE, heldout=300)
        passed += judge(simulate(rng, 300, 0.98, 0.03), chosen).passed
    assert passed >= 24


def test_students_that_know_when_they_are_right_are_promoted_in_part() -> None:
    rng = random.Random(20240609)

    def answers(n: int) -> list[Evaluation]:
        sure = (rng.random() < 0.75 for _ in range(n))
        return [
            row(rng.random() < (0.995 if yes else 0.5), -0.1 * rng.random() - (not yes))
            for yes in sure
        ]

    certificates = [
        judge(answers(300), choose_cutoff(answers(150), GATE, heldout=300)) for _ in range(40)
    ]
    assert sum(c.passed for c in certificates) >= 36
    assert all(c.agreement_all < 0.95 and 0.5 < c.coverage < 0.9 for c in certificates)
