"""Frequent inputs in the gate: checked one by one, weighed by requests, and never a wrong pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.gate.bounds import log_e_value
from distill.gate.cutoffs import Cutoff
from distill.gate.frequent import FrequentChecks, InputCheck
from distill.gate.groups import GroupCounts
from store.records import Certificate
from tests.helpers.gate_samples import ALL, judge, row, rows


def check(
    name: str = "ping",
    requests: int = 300,
    answers: int = 300,
    *,
    agreed: int | None = None,
    judged_agreed: int | None = None,
    confidence: float = 0.9,
    agrees: bool = True,
) -> InputCheck:
    """An input of which half of the teacher's answers choose and half judge."""
    half = answers // 2
    return InputCheck(
        fingerprint="f",
        input_hash=name,
        requests=requests,
        evaluation=replace(row(agrees, confidence), split="frequent"),
        chosen=half,
        chosen_agreed=half if agreed is None else agreed,
        judged=half,
        judged_agreed=half if judged_agreed is None else judged_agreed,
    )


def checks(*inputs: InputCheck, requests: int = 500, heldout: int = 200) -> FrequentChecks:
    return FrequentChecks(inputs, requests=requests, heldout=heldout, threshold=0.95)


def judged(
    *inputs: InputCheck, agreed: int = 200, n: int = 200, cutoff: Cutoff = ALL, requests: int = 500
) -> Certificate:
    frequent = checks(*inputs, requests=requests, heldout=n)
    return judge(rows(agreed, n), cutoff, frequent=frequent)


def test_a_frequent_input_on_which_the_student_differs_goes_to_the_teacher() -> None:
    wrong = check(agreed=0, judged_agreed=0, agrees=False)
    assert checks(wrong).teacher_inputs == ["ping"]
    certificate = judged(wrong)
    assert certificate.frequent is not None
    assert (certificate.frequent.inputs, certificate.frequent.served) == (1, 0)
    assert certificate.coverage == pytest.approx(0.4)
    assert certificate.score == 1.0
    assert not certificate.passed and "coverage 0.400" in certificate.reason
    assert "1 frequent input (60.0% of the requests) checked one by one: 0 served" in (
        certificate.reason
    )


def test_a_frequent_input_on_which_the_student_agrees_counts_by_its_requests() -> None:
    certificate = judged(check())
    assert checks(check()).teacher_inputs == []
    assert certificate.passed and certificate.frequent is not None
    assert certificate.frequent.served_share == pytest.approx(0.6)
    assert (certificate.coverage, certificate.score) == (1.0, 1.0)
    assert (certificate.n, certificate.heldout) == (200, 200)
    plain = judge(rows(200, 200))
    assert certificate.lower_bound == plain.lower_bound < certificate.frequent.lower_bound


def test_a_teacher_that_contradicts_itself_answers_by_itself() -> None:
    assert checks(check(agreed=100)).teacher_inputs == ["ping"]
    assert checks(check(agreed=142)).teacher_inputs == ["ping"]
    assert checks(check(agreed=143)).teacher_inputs == []


def test_an_input_of_which_little_is_known_goes_to_the_teacher() -> None:
    unknown = InputCheck(fingerprint="f", input_hash="new", requests=50)
    assert checks(unknown).teacher_inputs == ["new"]
    assert checks(check(answers=1)).teacher_inputs == ["ping"]
    # one answer would stand for 150 held-out groups
    assert checks(check(requests=300, answers=2), heldout=100).teacher_inputs == ["ping"]


def test_an_input_that_differs_under_one_prompt_is_listed_for_both() -> None:
    other = replace(check(agreed=0, agrees=False), fingerprint="g")
    frequent = checks(check(), other, requests=900)
    assert frequent.teacher_inputs == ["ping"]
    assert frequent.weighed(GroupCounts(10, 10, 10.0, 10), 10, None).inputs == []


def test_a_frequent_input_below_the_cutoff_is_not_served_and_not_listed() -> None:
    unsure = check(confidence=0.2)
    cutoff = Cutoff(0.5, 1.0, 1.0, 1.0, "half")
    certificate = judged(unsure, cutoff=cutoff)
    assert checks(unsure).teacher_inputs == []
    assert certificate.frequent is not None and certificate.frequent.served == 0
    assert certificate.coverage == pytest.approx(0.4)


def test_judging_answers_that_contradict_reject_the_cutoff() -> None:
    """The choosing half was right by chance."""
    certificate = judged(check(judged_agreed=120))
    assert not certificate.passed
    assert "by requests, lower bound" in certificate.reason
    assert certificate.frequent is not None
    assert certificate.frequent.agreed == pytest.approx(0.8)
    assert certificate.score == pytest.approx(0.6 * 0.8 + 0.4)
    assert certificate.lower_bound == certificate.frequent.lower_bound < 0.95


def test_without_frequent_inputs_nothing_changes() -> None:
    plain = judge(rows(195, 200))
    assert judge(rows(195, 200), frequent=checks()) == plain
    assert plain.frequent is None


def test_the_weights_are_those_of_the_requests() -> None:
    inputs = (check("a", 100, 60), check("b", 50, 400))
    served = GroupCounts(groups=90, agreed=80.0, covered=75.0, rows=100)
    result = checks(*inputs, requests=550, heldout=100).weighed(served, 100, None)
    # 400 other requests are 100 groups, of which 0.75 are served: 300 requests
    assert result.coverage == pytest.approx((300 + 150) / 550)
    assert result.n / 90 == pytest.approx(450 / 300)
    assert result.agreed / result.n == pytest.approx(result.score)


@settings(deadline=None, max_examples=40)
@given(
    st.floats(0.5, 0.99),
    st.floats(0.5, 0.99),
    st.floats(0.1, 3.0),
    st.integers(1, 8),
    st.integers(1, 5),
)
@pytest.mark.slow
def test_the_e_value_of_all_that_is_served_has_expectation_at_most_one(
    of_input: float, of_groups: float, share: float, judged_answers: int, groups: int
) -> None:
    """Exactly, by enumeration, against the agreement by requests; at any weight."""
    weight = share * groups / judged_answers
    scale = 1 / max(1.0, weight)
    total = groups + weight * judged_answers
    p0 = (groups * of_groups + weight * judged_answers * of_input) / total
    expected = 0.0
    for x in range(groups + 1):
        for y in range(judged_answers + 1):
            chance = _binomial(x, groups, of_groups) * _binomial(y, judged_answers, of_input)
            agreed = min(x + weight * y, total)
            expected += chance * np.exp(log_e_value(agreed * scale, total * scale, p0))
    assert expected <= 1 + 1e-9


def _binomial(k: int, n: int, p: float) -> float:
    from scipy.stats import binom  # noqa: PLC0415 - slow to import

    return float(binom.pmf(k, n, p))


@pytest.mark.slow
def test_a_noisy_teacher_is_not_promised_more_often_than_allowed() -> None:
    """Inputs are admitted by half of their answers: what looks good by chance must not pass."""
    rounds, of_others = 300, 0.985
    rng = np.random.default_rng(20241206)
    wrong = by_choosing_alone = 0
    for _ in range(rounds):
        rates = np.clip(1 - 0.12 * rng.uniform(0.5, 1.5, 12), 0, 1)
        chosen, judging = rng.binomial(10, rates), rng.binomial(10, rates)
        inputs = [
            check(f"i{i}", 40, 20, agreed=int(chosen[i]), judged_agreed=int(judging[i]))
            for i in range(12)
        ]
        frequent = checks(*inputs, requests=800, heldout=150)
        agreed = int(rng.binomial(150, of_others))
        served = [r for i, r in enumerate(rates) if f"i{i}" not in frequent.teacher_inputs]
        truth = (40 * sum(served) + 320 * of_others) / (40 * len(served) + 320)
        if truth < 0.95:
            wrong += judge(rows(agreed, 150), frequent=frequent).passed
            by_choosing_alone += judge(rows(agreed, 150)).passed
    allowed = rounds * 0.025
    assert wrong <= allowed
    assert by_choosing_alone > 2 * allowed
