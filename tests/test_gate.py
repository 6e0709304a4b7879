"""The gate's bound and its certificates: exact numbers, and a reason for each rejection."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gate_samples import ALL, judge, row, rows
from hypothesis import given
from hypothesis import strategies as st

from distill.gate import lower_bound, rows_needed
from store.models import Reason
from store.task_settings import GateSettings
from store.verdicts import Evaluation

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
