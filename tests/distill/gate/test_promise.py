"""The gate's promise, by simulation: the choice of the cutoffs and the certificate together.

bench/gate.py runs the same with more rounds, and the exact numbers of the bounds alone.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from distill.gate.cutoffs import choose_cutoffs
from distill.gate.gate import attempt_alpha
from store.records import Evaluation
from tests.helpers.gate_samples import GATE, chosen, judge, row


def simulate(rng: random.Random, n: int, agreement: float, informative: float) -> list[Evaluation]:
    """A student whose agreement is `agreement`, and depends on its confidence by `informative`."""
    result = []
    for _ in range(n):
        u = rng.random()
        chance = min(1.0, max(0.0, agreement + informative * (u - 0.5)))
        result.append(row(rng.random() < chance, u))
    return result


def served_agreement(cutoff: float | None, agreement: float, informative: float) -> float:
    """The true agreement of such a student's answers at or above a cutoff."""
    u = np.linspace(0.0 if cutoff is None else cutoff, 1.0, 2001)
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
@pytest.mark.slow
def test_students_below_the_threshold_are_promoted_less_often_than_stated(
    agreement: float, informative: float, calibration: int, heldout: int
) -> None:
    """Including the choice of cutoffs: the certified answers are those that would be served."""
    rng = random.Random(20240607)
    rounds, wrong = 100, 0
    for _ in range(rounds):
        cutoffs = chosen(simulate(rng, calibration, agreement, informative), heldout)
        certificate = judge(simulate(rng, heldout, agreement, informative), *cutoffs)
        truth = served_agreement(certificate.cutoff, agreement, informative)
        wrong += certificate.passed and truth < GATE.threshold
    # at most 2.5 % in the long run of first attempts
    assert wrong <= stats.binom.ppf(0.99, rounds, attempt_alpha(GATE, 1))


@pytest.mark.slow
def test_peeking_and_the_best_of_ten_keep_the_error_rate() -> None:
    """Ten retrains of a student just below the threshold, each looked at three times."""
    rng = random.Random(20240610)
    rounds, wrong = 25, 0
    for _ in range(rounds):
        for attempt in range(1, 11):
            cutoffs = choose_cutoffs(
                simulate(rng, 80, 0.949, 0.0),
                GATE,
                heldout=240,
                alpha=attempt_alpha(GATE, attempt),
            )
            heldout = simulate(rng, 240, 0.949, 0.0)
            looks = (judge(heldout[:n], *cutoffs, attempt=attempt) for n in (120, 180, 240))
            if any(c.passed for c in looks):
                wrong += 1
                break
    assert wrong <= stats.binom.ppf(0.99, rounds, 0.05)


@pytest.mark.slow
def test_a_sequence_of_cutoffs_errs_no_more_than_one_test() -> None:
    """Each cutoff's served part is just below the threshold; the confidence is uninformative."""
    rng = np.random.default_rng(20240611)
    rounds, wrong, alpha = 400, 0, 0.2
    settings = GATE.model_copy(update={"threshold": 0.8, "confidence": 1 - 2 * alpha})
    assert attempt_alpha(settings, 1) == pytest.approx(alpha)

    def answers(n: int, agreement: float) -> list[Evaluation]:
        return [row(bool(a < agreement), float(u)) for a, u in rng.random((n, 2))]

    [*_, all_of_it] = chosen(answers(60, 0.9), 100, settings)
    values = (0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, None)
    cutoffs = [replace(all_of_it, value=value) for value in values]
    for _ in range(rounds):
        wrong += judge(answers(100, 0.8), *cutoffs, settings=settings).passed
    assert wrong <= stats.binom.ppf(0.99, rounds, alpha)


@pytest.mark.slow
def test_good_students_are_promoted() -> None:
    rng = random.Random(20240608)
    passed = 0
    for _ in range(30):
        cutoffs = chosen(simulate(rng, 200, 0.99, 0.015), 400)
        passed += judge(simulate(rng, 400, 0.99, 0.015), *cutoffs).passed
    assert passed >= 26


@pytest.mark.slow
def test_students_with_a_good_confidence_are_promoted_in_part() -> None:
    rng = random.Random(20240609)

    def answers(n: int) -> list[Evaluation]:
        sure = (rng.random() < 0.75 for _ in range(n))
        return [
            row(rng.random() < (0.995 if yes else 0.5), 0.5 * rng.random() + 0.5 * yes)
            for yes in sure
        ]

    certificates = [judge(answers(400), *chosen(answers(200), 400)) for _ in range(30)]
    passed = [c for c in certificates if c.passed]
    assert len(passed) >= 27
    assert all(c.agreement_all < 0.95 and 0.5 < c.coverage < 0.9 for c in passed)
    assert np.mean([c.coverage for c in passed]) > 0.7
