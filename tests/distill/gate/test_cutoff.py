"""The cutoffs: a sequence fixed on calibration rows alone, tested until one fails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from distill.gate import cutoffs
from distill.gate.cutoffs import Cutoff
from store.records import Evaluation, Reason
from tests.helpers.gate_samples import ALL, GATE, chosen, judge, row, rows

# ---- the order ---------------------------------------------------------------------------------


def test_without_disagreements_the_last_cutoff_serves_everything() -> None:
    calibration = [row(True, place / 1000) for place in range(400)]
    result = chosen(calibration)
    assert (result[-1].coverage, result[-1].agreement) == (1.0, 1.0)
    assert result[0].chance > 0.9


@pytest.mark.parametrize("scale", [1.0, -1.0])  # probabilities, and log-probabilities
def test_an_answer_far_below_all_confidences_is_not_served(scale: float) -> None:
    calibration = [row(True, scale * (0.5 + place / 1000)) for place in range(400)]
    last = chosen(calibration)[-1].value
    lowest = min(e.confidence for e in calibration if e.confidence is not None)
    assert last is not None
    assert last == pytest.approx(lowest - 0.1 * abs(lowest))


def test_cutoffs_begin_at_the_likeliest_and_end_at_full_coverage() -> None:
    sure = [row(True, 0.5 + place / 10_000) for place in range(300)]
    unsure = [row(place % 2 == 0, 0.1 + place / 10_000) for place in range(100)]
    result = chosen([*sure, *unsure])
    assert result[0].chance == max(c.chance for c in result) > 0.9
    assert 0.7 <= result[0].coverage <= 0.77
    assert [c.coverage for c in result] == sorted({c.coverage for c in result})
    assert 5 < len(result) <= cutoffs.STEPS + 1
    assert (result[-1].value, result[-1].coverage) == (pytest.approx(0.09), 1.0)
    assert "calibration groups agree" in result[0].reason


def test_the_prior_comes_from_the_calibration_rows() -> None:
    calibration = [*rows(295, 297), *rows(0, 30, confidence=0.1)]
    result = chosen(calibration)
    assert result[0].value == 0.5
    assert result[0].prior == (295.0, 2.0, 0.95)
    assert result[-1].prior == (295.0, 32.0, 0.95)


def test_a_tie_is_served_as_a_whole_or_not_at_all() -> None:
    tied = [row(place % 2 == 0, 0.25) for place in range(100)]
    better = [row(True, 0.75)] * 300
    result = chosen([*tied, *better])
    assert [c.value for c in result] == [0.5, pytest.approx(0.225)]  # never within the tie
    assert result[0].coverage == 0.75


def test_few_calibration_rows_are_trusted_less_than_many() -> None:
    """The same shares, but ten times fewer: the estimate is wider, so the margin is too."""

    def calibration(times: int) -> list[Evaluation]:
        return [*[row(True)] * (98 * times), *[row(False)] * times]

    assert chosen(calibration(1), 600)[0].chance < chosen(calibration(10), 600)[0].chance


def test_more_held_out_rows_make_a_certificate_likelier() -> None:
    calibration = [*[row(True)] * 196, *[row(False)] * 4]
    chances = [chosen(calibration, n)[0].chance for n in (50, 100, 300, 1000)]
    assert chances == sorted(chances)
    assert chances[0] == 0.0  # fewer than are needed at all


def test_without_a_likely_cutoff_the_likeliest_is_tried() -> None:
    calibration = [row(place % 10 != 0, place / 1000) for place in range(200)]
    result = chosen(calibration)
    assert result[0].chance < 0.9
    assert not judge(rows(180, 200), *result).passed


def test_without_a_servable_answer_the_cutoff_serves_none() -> None:
    for calibration in ([], [row(False, None, Reason.STUDENT_DOWN)] * 9):
        [result] = chosen(calibration, 100)
        assert (result.value, result.coverage) == (None, 0.0)
        assert "no servable answer" in result.reason


def test_without_a_chance_the_highest_cutoff_that_covers_enough_is_tried() -> None:
    calibration = [row(False, place / 1000) for place in range(200)]
    [first, *_] = chosen(calibration)
    assert first.chance == 0.0
    assert first.coverage == 0.5  # gate.min_coverage


def test_an_unknown_confidence_is_below_every_cutoff() -> None:
    calibration = [*[row(True, 0.8)] * 300, *[row(False, None)] * 60]
    assert [c.value for c in chosen(calibration)] == [pytest.approx(0.72), None]


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.5, 0.6, None]))))
@pytest.mark.slow
def test_a_cutoff_has_its_coverage_and_agreement(answers: list[tuple[bool, float | None]]) -> None:
    calibration = [row(agrees, confidence) for agrees, confidence in answers]
    result = chosen(calibration, 100)
    assert result == chosen(calibration[::-1], 100)  # whatever the order
    for cutoff in result:
        certificate = judge(calibration, cutoff)
        assert certificate.coverage == pytest.approx(cutoff.coverage)
        assert certificate.score == pytest.approx(cutoff.agreement)


def test_the_chance_is_scipys_beta_binomial() -> None:
    most, n = np.array([-1.0, 0.0, 3.0, 9.0]), np.array([10.0, 20.0, 30.0, 5.0])
    a, b = np.array([0.5, 2.5, 4.0, 1.0]), np.array([9.5, 30.0, 80.0, 3.0])
    expected = stats.betabinom.cdf(most, n.astype(int), a, b)
    assert cutoffs._at_most(most, n, a, b) == pytest.approx(np.minimum(expected, 1.0))


# ---- the test of the order ---------------------------------------------------------------------

SURE, HALF, UNSURE = rows(200, 200), rows(100, 100, confidence=0.5), rows(50, 100, confidence=0.1)


def at(value: float | None) -> Cutoff:
    return Cutoff(value, 1.0, 1.0, 1.0, "chosen")


def test_the_last_one_that_passes_is_certified() -> None:
    certificate = judge([*SURE, *HALF, *UNSURE], at(0.8), at(0.4), at(None))
    assert certificate.passed
    assert (certificate.cutoff, certificate.n, certificate.cutoffs_tested) == (0.4, 300, 3)
    assert "no further: at coverage 1.000, agreement 0.875 (350 of 400" in certificate.reason


def test_no_cutoff_is_tested_after_one_that_fails() -> None:
    """The second fails, so the third must not pass, though it would by itself."""
    heldout = [*SURE, *rows(80, 100, confidence=0.5), *rows(2000, 2000, confidence=0.1)]
    assert judge(heldout, at(None)).passed
    certificate = judge(heldout, at(0.4), at(None), settings=GATE)
    assert not certificate.passed
    assert (certificate.cutoff, certificate.cutoffs_tested) == (0.4, 1)


def test_a_lack_of_coverage_does_not_end_the_sequence() -> None:
    heldout = [*SURE, *HALF, *rows(100, 200, confidence=0.1)]
    certificate = judge(heldout, at(0.8), at(0.4), at(None))  # 0.4, 0.6 and 1 of the rows
    assert certificate.passed
    assert (certificate.cutoff, certificate.cutoffs_tested) == (0.4, 3)
    short = judge(heldout, at(0.8))
    assert not short.passed
    assert "coverage 0.400 (200 of 500 held-out rows) is below 0.5" in short.reason


def test_a_bad_slice_ends_the_sequence() -> None:
    heldout = [*rows(775, 775), *rows(10, 25, confidence=0.5, label="rare")]
    certificate = judge(heldout, at(0.8), at(None), output="label")
    assert certificate.passed
    assert certificate.cutoff == 0.8
    assert "no further" in certificate.reason
    assert "one label agrees on 10 of 25" in certificate.reason
    assert not judge(heldout, ALL, output="label").passed
