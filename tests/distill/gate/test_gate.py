"""Certificates: exact numbers, a reason for each rejection, attempts, live rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from distill.gate.bounds import bias_lower_bound, lower_bound, prediction_powered_lower_bound
from distill.gate.gate import (
    attempt_alpha,
    attempt_number,
    certify,
    extended_bound,
    groups_needed,
)
from store.records import (
    Ceiling,
    Evaluation,
    Reason,
)
from store.settings.tasks import GateSettings
from tests.helpers.gate_samples import ALL, GATE, judge, row, rows
from tests.helpers.samples import a_certificate

PRIOR = (150.0, 2.0, 0.95)

# ---- attempts ----------------------------------------------------------------------------------


def test_all_attempts_share_one_error_probability() -> None:
    shares = [attempt_alpha(GATE, k) for k in range(1, 2000)]
    assert shares[:3] == pytest.approx([0.05 / 2, 0.05 / 6, 0.05 / 12])
    assert 0.0499 < sum(shares) < 0.05


def test_an_attempt_counts_when_it_shares_a_fingerprint() -> None:
    earlier = [
        a_certificate(fingerprints=["a", "b"], passed=False),
        a_certificate(fingerprints=["b"], passed=True),
        a_certificate(fingerprints=["c"]),
        a_certificate(fingerprints=[]),
    ]
    result = [attempt_number(earlier, names) for names in (["a"], ["b"], ["c", "a"], ["d"], [])]
    assert result == [2, 3, 3, 1, 1]
    assert attempt_number([], ["a"]) == 1


@pytest.mark.parametrize(
    ("threshold", "attempt", "calibration", "expected"),
    [
        (0.95, 1, 0, 98),
        (0.95, 1, 40, 95),
        (0.95, 1, 200, 87),
        (0.95, 2, 0, 125),
        (0.90, 1, 0, 48),
        (0.98, 1, 0, 249),
        (0.50, 1, 0, 7),
    ],
)
def test_groups_needed_without_a_disagreement(
    threshold: float, attempt: int, calibration: int, expected: int
) -> None:
    settings = GateSettings(threshold=threshold)
    needed = groups_needed(settings, attempt, calibration=calibration)
    assert needed == expected
    prior = (float(calibration), 0.0, threshold) if calibration else ()
    cutoff = replace(ALL, prior=prior)
    certified = [
        judge(rows(n, n), cutoff, settings=settings, attempt=attempt) for n in (needed, needed - 1)
    ]
    assert [c.passed for c in certified] == [True, False]
    assert f"{needed - 1} served held-out rows are too few" in certified[1].reason


# ---- the certificate ---------------------------------------------------------------------------


def test_a_certificate_stores_all_numbers_to_recompute_it() -> None:
    certificate = judge(rows(198, 200), replace(ALL, prior=PRIOR))
    assert certificate.passed
    assert (certificate.n, certificate.agreed, certificate.heldout) == (198 + 2, 198, 200)
    assert certificate.score == 0.99
    assert certificate.lower_bound == lower_bound(198, 200, 0.025, PRIOR)
    assert certificate.coverage == 1.0
    assert certificate.agreement_all == 0.99
    assert (certificate.threshold, certificate.confidence_level) == (0.95, 0.95)
    assert (certificate.attempt, certificate.alpha) == (1, attempt_alpha(GATE, 1))
    assert certificate.prior == list(PRIOR)
    assert (certificate.cutoff, certificate.cutoffs_tested) == (None, 1)
    assert (certificate.min_coverage, certificate.faults) == (0.5, 0)
    assert (certificate.method, certificate.fingerprints, certificate.at) == (
        "beta-mixture",
        ["f"],
        7.0,
    )
    assert "0.990" in certificate.reason
    assert "200" in certificate.reason
    # also its id: judging twice changes nothing
    assert judge(rows(198, 200), replace(ALL, prior=PRIOR)) == certificate


@pytest.mark.parametrize(
    ("heldout", "parts"),
    [
        ([], ["no servable answer on 0"]),
        ([row(False, None, Reason.STUDENT_SLOW)] * 80, ["no servable answer on 80"]),
        (rows(97, 97), ["97 served", "too few", "needs 98"]),
        (rows(188, 200), ["0.940", "188 of 200", "lower bound 0.8", "< 0.95"]),
        (
            [*rows(100, 100), *[row(True, 0.9, Reason.STUDENT_DOWN)] * 101],
            ["coverage 0.498", "100 of 201", "below 0.5"],
        ),
        (
            [*rows(30, 30), *[row(True, 0.9, Reason.STUDENT_DOWN)] * 70],
            ["30 served", "needs 98", "coverage 0.300"],  # every reason, not the first alone
        ),
    ],
)
def test_a_rejection_says_why_with_numbers(heldout: list[Evaluation], parts: list[str]) -> None:
    certificate = judge(heldout)
    assert not certificate.passed
    for words in parts:
        assert words in certificate.reason


def test_a_later_attempt_needs_more() -> None:
    heldout = rows(198, 200)
    result = [judge(heldout, attempt=k) for k in (1, 2, 20)]
    assert [c.passed for c in result] == [True, False, False]
    assert result[0].lower_bound > result[1].lower_bound > result[2].lower_bound
    assert "this one is number 2" in result[1].reason


def test_faults_lower_the_coverage_and_are_no_evidence() -> None:
    certificate = judge([*rows(190, 190), *[row(False, 0.9, Reason.STUDENT_CUT_OFF)] * 10])
    assert (certificate.n, certificate.agreed, certificate.heldout) == (190, 190, 200)
    assert certificate.coverage == 0.95
    assert certificate.agreement_all == 0.95
    assert certificate.faults == 10
    assert certificate.passed


def test_answers_below_the_cutoff_are_not_served() -> None:
    heldout = [
        *[row(True, 0.9)] * 100,
        *[row(True, 0.5)] * 50,  # at the cutoff: served
        *[row(False, 0.4)] * 40,
        *[row(True, None)] * 10,  # of unknown confidence
    ]
    certificate = judge(heldout, replace(ALL, value=0.5))
    assert (certificate.n, certificate.agreed) == (150, 150)
    assert certificate.agreement_all == 0.8
    assert certificate.cutoff == 0.5


def test_coverage_at_the_minimum_is_enough() -> None:
    settings = GateSettings(min_coverage=0.7)
    down = row(True, 0.9, Reason.STUDENT_DOWN)
    assert judge([*rows(140, 140), *[down] * 60], settings=settings).passed
    assert not judge([*rows(139, 139), *[down] * 61], settings=settings).passed


@examples(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.5, 0.9, None])), max_size=60),
    st.lists(st.sampled_from([None, 0.2, 0.6]), min_size=1, max_size=4),
    st.sampled_from([0.3, 0.6, 0.9]),
    st.sampled_from([0.2, 0.7, 1.0]),
)
@pytest.mark.slow
def test_no_certificate_passes_without_proof(
    answers: list[tuple[bool, float | None]],
    values: list[float | None],
    threshold: float,
    coverage: float,
) -> None:
    settings = GateSettings(threshold=threshold, min_coverage=coverage, min_slice_rows=1)
    cutoffs = [replace(ALL, value=value) for value in values]
    certificate = judge([row(*answer) for answer in answers], *cutoffs, settings=settings)
    assert extended_bound(certificate, 0, 0) == certificate.lower_bound
    assert 1 <= certificate.cutoffs_tested <= len(cutoffs)
    if certificate.passed:
        assert certificate.lower_bound >= threshold
        assert certificate.coverage >= coverage
        assert not any(s.below for s in certificate.slices)


def test_certifying_without_a_cutoff_is_an_error() -> None:
    with pytest.raises(ValueError, match="no cutoff"):
        certify(
            rows(9, 9),
            [],
            GATE,
            attempt=1,
            output="text",
            task="triage",
            run_id="run",
            scorer="exact",
            fingerprints=[],
            now=0.0,
        )


# ---- live rows, and what it is read from -------------------------------------------------------


@examples(deadline=None)
@given(st.integers(0, 300), st.data())
@pytest.mark.slow
def test_live_rows_continue_the_bound_of_the_held_out_rows(live: int, data: st.DataObject) -> None:
    agreed = data.draw(st.integers(0, live))
    certificate = judge(rows(198, 200), replace(ALL, prior=PRIOR))
    bound = extended_bound(certificate, live, agreed)
    assert bound == lower_bound(198 + agreed, 200 + live, 0.025, PRIOR)
    assert extended_bound(certificate, live + 1, agreed) < bound
    assert extended_bound(certificate, live + 1, agreed + 1) > bound


def test_a_ceiling_below_the_threshold_is_in_the_reason() -> None:
    low = Ceiling(n=200, agreed=178, share=0.89, low=0.838, high=0.93)
    high = Ceiling(n=200, agreed=196, share=0.98, low=0.95, high=0.994)
    for heldout in (rows(198, 200), rows(150, 200)):
        outcome = judge(heldout, ceiling=low)
        assert "above the teacher's own ceiling" in outcome.reason
        assert "178 of 200" in outcome.reason
        assert outcome.ceiling == low
        assert "ceiling" not in judge(heldout, ceiling=high).reason
    assert judge(rows(198, 200), ceiling=low).passed  # a remark, no objection


# ---- a judge -----------------------------------------------------------------------------------


def test_a_judge_without_labels_is_uncorrected_and_says_so() -> None:
    certificate = judge(rows(198, 200), scorer="judge", labelled=())
    assert certificate.passed
    assert certificate.judge is None
    assert certificate.method == "beta-mixture"
    assert "uncorrected for the judge's errors" in certificate.reason
    assert "uncorrected" not in judge(rows(198, 200)).reason


def test_a_judge_with_labels_is_corrected() -> None:
    pairs = [(True, True)] * 470 + [(False, False)] * 20 + [(True, False)] * 6 + [(False, True)] * 4
    settings = GateSettings(threshold=0.9)
    certificate = judge(rows(990, 1000), scorer="judge", labelled=pairs, settings=settings)
    check = certificate.judge
    assert check is not None
    assert (check.n, check.agreement) == (500, 0.98)
    assert check.sensitivity == pytest.approx(470 / 474)
    assert check.specificity == pytest.approx(20 / 26)
    assert check.bias == pytest.approx(-2 / 500)
    assert check.bias_low == bias_lower_bound(pairs, 0.0125)
    assert certificate.method == "prediction-powered"
    assert "; corrected by 500 answers that people have judged too" in certificate.reason
    assert certificate.lower_bound == prediction_powered_lower_bound(
        990, 1000, check.bias_low, 0.025
    )
    assert certificate.lower_bound == extended_bound(certificate, 0, 0)
    assert extended_bound(certificate, 100, 100) > certificate.lower_bound
    assert certificate.passed


def test_a_judge_that_calls_everything_good_proves_nothing() -> None:
    pairs = [(True, True)] * 90 + [(True, False)] * 10
    certificate = judge(rows(1000, 1000), scorer="judge", labelled=pairs)
    assert not certificate.passed
    assert certificate.judge is not None
    assert (certificate.judge.sensitivity, certificate.judge.specificity) == (1.0, 0.0)


def test_a_certificate_of_a_pure_scorer_mentions_no_judge() -> None:
    certificate = judge(rows(1000, 1000), scorer="exact", labelled=None)
    assert (certificate.judge, certificate.method) == (None, "beta-mixture")
    assert "judge" not in certificate.reason
