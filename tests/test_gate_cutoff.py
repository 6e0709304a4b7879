"""The cutoff: chosen on calibration rows alone, with an honest guess of what will come of it."""

from __future__ import annotations

import numpy as np
import pytest
from gate_samples import GATE, judge, row, rows
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distill import gate
from distill.gate import choose_cutoff, lower_bound
from store.models import Reason
from store.task_settings import GateSettings
from store.verdicts import Evaluation


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
