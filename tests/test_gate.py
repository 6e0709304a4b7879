"""The gate: exact bounds, honest cutoffs, and how often a student below the threshold gets by."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distill import gate
from distill.gate import Cutoff, certify, choose_cutoff, lower_bound, rows_needed
from store.config import GateSettings
from store.models import Certificate, Evaluation, Reason

GATE = GateSettings(threshold=0.95, confidence=0.95, min_coverage=0.5)
ALL = Cutoff(None, 1.0, 1.0, 1.0, "all")


def row(agrees: bool, confidence: float | None = -0.1, fault: str | None = None) -> Evaluation:
    return Evaluation(
        run_id="run",
        input_hash="hash",
        split="heldout",
        scorer="exact",
        score=float(agrees),
        agrees=agrees,
        teacher_output="a",
        student_output="a" if agrees else "b",
        confidence=confidence,
        latency_ms=1.0,
        fault=fault,
    )


def rows(agreed: int, n: int) -> list[Evaluation]:
    return [row(place < agreed) for place in range(n)]


def judge(
    heldout: Iterable[Evaluation], cutoff: Cutoff = ALL, settings: GateSettings = GATE
) -> Certificate:
    return certify(
        list(heldout),
        cutoff,
        settings,
        task="triage",
        run_id="run",
        scorer="exact",
        fingerprints=["f"],
        now=7.0,
    )


# ---- the bound ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agreed", "n", "confidence", "expected"),
    [
        # two-sided 95 % Clopper-Pearson intervals as tables print them: one side has 97.5 %
        (10, 10, 0.975, 0.6915),
        (9, 10, 0.975, 0.5550),
        (5, 10, 0.975, 0.1871),
        (1, 10, 0.975, 0.0025),
        (0, 10, 0.975, 0.0),
        (95, 100, 0.975, 0.8872),
        (81, 263, 0.975, 0.2527),  # Newcombe 1998, table I
        (15, 148, 0.975, 0.0578),
        # with no disagreement the bound is alpha ** (1 / n)
        (59, 59, 0.95, 0.05 ** (1 / 59)),
        (20, 20, 0.95, 0.8609),
    ],
)
def test_bounds_from_tables(agreed: int, n: int, confidence: float, expected: float) -> None:
    assert lower_bound(agreed, n, confidence) == pytest.approx(expected, abs=6e-5)


@given(st.integers(1, 400), st.data())
def test_the_bound_is_monotone_and_below_the_mean(n: int, data: st.DataObject) -> None:
    agreed = data.draw(st.integers(0, n))
    confidence = data.draw(st.sampled_from([0.8, 0.9, 0.95, 0.99]))
    bound = lower_bound(agreed, n, confidence)
    assert 0.0 <= bound <= agreed / n
    if agreed < n:
        assert bound < lower_bound(agreed + 1, n, confidence)  # one more that agrees
    assert lower_bound(agreed + 1, n + 1, confidence) > bound  # one row more, and it agrees
    assert lower_bound(agreed, n + 1, confidence) <= bound  # one row more, and it does not
    assert lower_bound(agreed, n, 0.999) <= bound  # more confidence


@pytest.mark.parametrize(("agreed", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(agreed: int, n: int) -> None:
    with pytest.raises(ValueError, match="cannot agree"):
        lower_bound(agreed, n, 0.95)


@pytest.mark.parametrize(
    ("threshold", "confidence", "expected"),
    [(0.95, 0.95, 59), (0.9, 0.95, 29), (0.98, 0.95, 149), (0.95, 0.99, 90), (0.5, 0.95, 5)],
)
def test_rows_needed(threshold: float, confidence: float, expected: int) -> None:
    settings = GateSettings(threshold=threshold, confidence=confidence)
    assert rows_needed(settings) == expected
    assert lower_bound(expected, expected, confidence) >= threshold
    assert lower_bound(expected - 1, expected - 1, confidence) < threshold


# ---- the certificate ---------------------------------------------------------------------------


def test_a_certificate_holds_all_its_numbers() -> None:
    certificate = judge(rows(198, 200))
    assert certificate.passed
    assert (certificate.n, certificate.agreed, certificate.heldout) == (198 + 2, 198, 200)
    assert certificate.score == 0.99
    assert certificate.lower_bound == lower_bound(198, 200, 0.95)
    assert certificate.coverage == 1.0
    assert certificate.agreement_all == 0.99
    assert (certificate.threshold, certificate.confidence_level) == (0.95, 0.95)
    assert (certificate.cutoff, certificate.min_coverage) == (None, 0.5)
    assert (certificate.method, certificate.fingerprints, certificate.at) == (
        "clopper-pearson",
        ["f"],
        7.0,
    )
    assert "0.990" in certificate.reason
    assert "200" in certificate.reason
    assert judge(rows(198, 200)) == certificate  # also its id: judging twice changes nothing


@pytest.mark.parametrize(
    ("heldout", "said"),
    [
        ([], ["no servable answer on 0"]),
        ([row(False, None, Reason.STUDENT_SLOW)] * 80, ["no servable answer on 80"]),
        (rows(58, 58), ["58 served", "too few", "needs 59"]),
        (rows(188, 200), ["0.940", "188 of 200", "lower bound 0.90", "< 0.95"]),
        (
            [*rows(100, 100), *[row(True, -0.1, Reason.STUDENT_DOWN)] * 101],
            ["coverage 0.498", "100 of 201", "below 0.5"],
        ),
        (
            [*rows(30, 30), *[row(True, -0.1, Reason.STUDENT_DOWN)] * 70],
            ["30 served", "needs 59", "coverage 0.300"],  # every reason, not the first alone
        ),
    ],
)
def test_a_rejection_says_why_with_numbers(heldout: list[Evaluation], said: list[str]) -> None:
    certificate = judge(heldout)
    assert not certificate.passed
    for words in said:
        assert words in certificate.reason


def test_faults_lower_the_coverage_and_are_no_evidence() -> None:
    certificate = judge([*rows(190, 190), *[row(False, -0.1, Reason.STUDENT_CUT_OFF)] * 10])
    assert (certificate.n, certificate.agreed, certificate.heldout) == (190, 190, 200)
    assert certificate.coverage == 0.95
    assert certificate.agreement_all == 0.95
    assert certificate.passed


def test_what_is_below_the_cutoff_is_not_served() -> None:
    cutoff = replace(ALL, value=-0.5)
    heldout = [
        *[row(True, -0.1)] * 100,
        *[row(True, -0.5)] * 50,  # at the cutoff: served
        *[row(False, -0.6)] * 40,
        *[row(True, None)] * 10,  # of unknown confidence
    ]
    certificate = judge(heldout, cutoff)
    assert (certificate.n, certificate.agreed) == (150, 150)
    assert certificate.agreement_all == 0.8
    assert certificate.cutoff == -0.5


def test_coverage_at_the_minimum_is_enough() -> None:
    settings = GateSettings(min_coverage=0.7)
    down = row(True, -0.1, Reason.STUDENT_DOWN)
    assert judge([*rows(70, 70), *[down] * 30], settings=settings).passed
    assert not judge([*rows(69, 69), *[down] * 31], settings=settings).passed


# ---- the cutoff --------------------------------------------------------------------------------


def test_everything_is_served_when_everything_may_be() -> None:
    calibration = [row(True, -place / 100) for place in range(200)]
    cutoff = choose_cutoff(calibration, GATE)
    assert (cutoff.value, cutoff.coverage, cutoff.agreement) == (None, 1.0, 1.0)
    assert cutoff.chance > 0.9


def test_what_is_unsure_is_cut_off() -> None:
    sure = [row(True, -0.01 - place / 10_000) for place in range(300)]
    unsure = [row(place % 2 == 0, -1 - place / 10_000) for place in range(100)]
    cutoff = choose_cutoff([*sure, *unsure], GATE)
    assert cutoff.value is not None
    assert -1.02 < cutoff.value < -0.04
    assert 0.75 <= cutoff.coverage < 0.8
    assert cutoff.agreement > 0.97
    assert "calibration rows agree" in cutoff.reason


def test_a_tie_is_served_as_a_whole_or_not_at_all() -> None:
    tied = [row(place % 2 == 0, -1.0) for place in range(100)]
    better = [row(True, -0.5)] * 300
    cutoff = choose_cutoff([*tied, *better], GATE)
    assert cutoff.value == -0.75  # halfway: never within the tie
    assert cutoff.coverage == 0.75


def test_few_calibration_rows_are_trusted_less_than_many() -> None:
    """The same shares, but ten times fewer: the estimate is wider, so the margin is too."""

    def calibration(times: int) -> list[Evaluation]:
        return [*[row(True, -0.1)] * (97 * times), *[row(False, -0.1)] * (2 * times)]

    few = choose_cutoff(calibration(1), GATE, heldout=600)
    many = choose_cutoff(calibration(10), GATE, heldout=600)
    assert few.chance < many.chance


def test_more_held_out_rows_make_a_certificate_likelier() -> None:
    calibration = [*[row(True)] * 196, *[row(False)] * 4]
    chances = [choose_cutoff(calibration, GATE, heldout=n).chance for n in (50, 100, 300, 1000)]
    assert chances == sorted(chances)
    assert chances[0] == 0.0  # fewer than the 59 that are needed
    assert choose_cutoff(calibration, GATE, heldout=200).chance == pytest.approx(
        choose_cutoff(calibration, GATE).chance
    )


def test_without_a_likely_cutoff_the_likeliest_is_tried() -> None:
    calibration = [row(place % 10 != 0, -place / 1000) for place in range(200)]
    cutoff = choose_cutoff(calibration, GATE)
    assert cutoff.chance < 0.9
    assert not judge(rows(180, 200), cutoff).passed


def test_no_servable_answer_no_cutoff() -> None:
    for calibration in ([], [row(False, None, Reason.STUDENT_DOWN)] * 9):
        cutoff = choose_cutoff(calibration, GATE)
        assert (cutoff.value, cutoff.coverage) == (None, 0.0)
        assert "no servable answer" in cutoff.reason


def test_unknown_confidence_falls_to_any_cutoff() -> None:
    calibration = [*[row(True, -0.2)] * 300, *[row(False, None)] * 60]
    assert choose_cutoff(calibration, GATE).value == -0.2


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([-3.0, -2.0, -1.0, -0.5, None]))))
def test_a_cutoff_tells_what_it_serves(answers: list[tuple[bool, float | None]]) -> None:
    calibration = [row(agrees, confidence) for agrees, confidence in answers]
    cutoff = choose_cutoff(calibration, GATE)
    assert cutoff == choose_cutoff(calibration[::-1], GATE)  # whatever the order
    certificate = judge(calibration, cutoff)
    assert certificate.coverage == pytest.approx(cutoff.coverage)
    assert certificate.score == pytest.approx(cutoff.agreement)


@given(st.integers(1, 300), st.floats(0.6, 0.99), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_mirror_of_the_bound_is_its_mirror(n: int, threshold: float, confidence: float) -> None:
    settings = GateSettings(threshold=threshold, confidence=confidence)
    missed = int(gate._most_missed(np.array([float(n)]), settings)[0])
    if missed >= 0:
        assert lower_bound(n - missed, n, confidence) >= threshold - 1e-9
    assert n - missed - 1 < 0 or lower_bound(n - missed - 1, n, confidence) < threshold + 1e-9


def test_the_chance_is_scipys_beta_binomial() -> None:
    most, n = np.array([-1.0, 0.0, 3.0, 9.0]), np.array([10.0, 20.0, 30.0, 5.0])
    a, b = np.array([0.5, 2.5, 4.0, 1.0]), np.array([9.5, 30.0, 80.0, 3.0])
    expected = stats.betabinom.cdf(most, n.astype(int), a, b)
    assert gate._at_most(most, n, a, b) == pytest.approx(np.minimum(expected, 1.0))


# ---- the promise -------------------------------------------------------------------------------


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
