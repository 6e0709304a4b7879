"""The worst slice: which fingerprint or label is proven to lie below the floor."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from distill.gate.recall import floor_of
from distill.gate.slices import RARE, holm, slices_of, tarone
from store.records import Reason, Slice
from store.settings.tasks import GateSettings
from tests.helpers.gate_samples import GATE, judge, row, rows


def a_slice(name: str, p_value: float) -> Slice:
    return Slice(kind="label", name=name, n=20, agreed=10, p_value=p_value, below=False)


@pytest.mark.parametrize(
    ("p_values", "below"),
    [
        ([], ""),
        ([0.05], "a"),
        ([0.051], ""),
        ([0.02, 0.03], "ab"),  # 0.02 ≤ 0.05 / 2, then 0.03 ≤ 0.05 / 1
        ([0.03, 0.03], ""),  # 0.03 > 0.05 / 2, though each alone would be
        ([0.01, 0.03, 0.04], "a"),  # 0.03 > 0.05 / 2: the third is not looked at any more
        ([0.04, 0.01, 0.02], "bca"),  # by p-value, not by name
        ([0.02, 0.9, 0.9, 0.9], ""),
    ],
)
def test_slices_below_the_floor_follow_holms_procedure(p_values: list[float], below: str) -> None:
    slices = [a_slice("abcd"[place], p) for place, p in enumerate(p_values)]
    result = holm(slices, 0.05)
    assert "".join(s.name for s in result if s.below) == below
    assert [s.p_value for s in result] == sorted(p_values)


def of_rare(name: str, n: int, p_value: float) -> Slice:
    return Slice(kind="label", name=name, n=n, agreed=0, p_value=p_value, below=False)


@pytest.mark.parametrize(
    ("slices", "tested", "below"),
    [
        ([], "", ""),
        ([of_rare("a", 1, 0.15)], "", ""),  # it can never reach 0.025
        ([of_rare("a", 2, 0.0225)], "a", "a"),
        # two could reach 0.025, so the level is 0.0125, which none of them can reach
        ([of_rare("a", 2, 0.0225), of_rare("b", 2, 0.0225)], "", ""),
        # the larger one is tested at 0.025, as the smaller one could not reach 0.0125 beside it
        ([of_rare("a", 2, 0.0225), of_rare("b", 9, 0.024)], "b", ""),
        # what is below leaves its level to the rest
        ([of_rare("a", 2, 0.0225), of_rare("b", 9, 0.001)], "ba", "ba"),
        # any number of labels with a single row costs nothing
        ([of_rare("a", 2, 0.0225), *[of_rare("x", 1, 0.15)] * 50], "a", "a"),
    ],
)
def test_rare_labels_below_the_floor_follow_tarones_procedure(
    slices: list[Slice], tested: str, below: str
) -> None:
    result = tarone(slices, 0.025, 0.85)
    assert "".join(s.name for s in result) == tested
    assert "".join(s.name for s in result if s.below) == below


@pytest.mark.slow
def test_good_slices_are_reported_as_below_at_most_as_often_as_stated() -> None:
    """Every label agrees exactly at the floor: the chance that one is reported, over all."""
    rng = np.random.default_rng(20241202)
    sizes = [200, 150, 25, *[12] * 3, *[5] * 8, *[2] * 10, *[1] * 20]
    reported = 0
    for _ in range(120):
        served = [
            row(bool(agrees), label=f"label {number}", fingerprint=str(number % 2))
            for number, size in enumerate(sizes)
            for agrees in rng.random(size) < 0.85
        ]
        reported += any(s.below for s in slices_of(served, "label", GATE))
    assert stats.binomtest(reported, 120, 0.05, "greater").pvalue > 0.01


def test_the_p_value_is_the_exact_lower_tail() -> None:
    result = slices_of(rows(15, 20), "text", GATE)
    assert [(s.kind, s.name, s.n, s.agreed) for s in result] == [("fingerprint", "f", 20, 15)]
    assert result[0].p_value == pytest.approx(stats.binom.cdf(15, 20, 0.85))


def test_labels_are_slices_only_where_answers_are_labels() -> None:
    served = [*rows(30, 30, label="x"), *rows(30, 30, label=" y\n"), *rows(30, 30, label="y")]
    for output in ("text", "json"):
        assert [s.kind for s in slices_of(served, output, GATE)] == ["fingerprint"]
    result = slices_of(served, "label", GATE)
    assert {(s.kind, s.name, s.n) for s in result} == {
        ("fingerprint", "f", 90),
        ("label", "x", 30),
        ("label", "y", 60),  # the same label, as a scorer compares
    }


def test_a_label_of_few_rows_is_no_slice_of_its_own() -> None:
    served = [*rows(0, 19, label="rare"), *rows(20, 20, label="common")]
    assert [s.name for s in slices_of(served, "label", GATE)] == [RARE, "f", "common"]
    lower = GATE.model_copy(update={"min_slice_rows": 19})
    assert slices_of(served, "label", lower)[0].name == "rare"
    assert slices_of(served, "label", lower)[0].below


def test_a_floor_is_never_below_zero() -> None:
    settings = GateSettings(threshold=0.1, slice_tolerance=0.5)
    assert floor_of(settings) == 0.0
    assert not slices_of(rows(0, 50), "text", settings)[0].below


def test_a_bad_label_in_a_good_mean_fails_the_certificate_without_being_named() -> None:
    heldout = [*rows(775, 775, label="usual"), *rows(10, 25, label="the secret one")]
    assert judge(heldout).passed  # 0.981 on the whole
    certificate = judge(heldout, output="label")
    assert certificate.lower_bound >= 0.95
    assert not certificate.passed
    assert "one label agrees on 10 of 25 held-out rows (0.400)" in certificate.reason
    assert "below 0.85" in certificate.reason
    assert "secret" not in certificate.reason
    assert certificate.slices[0].name == "the secret one"
    assert certificate.slices[0].below


def test_a_bad_fingerprint_fails_the_certificate_for_every_kind_of_answer() -> None:
    heldout = [*rows(775, 775, fingerprint="1"), *rows(10, 25, fingerprint="2")]
    certificate = judge(heldout, output="json")
    assert not certificate.passed
    assert "one fingerprint agrees on 10 of 25" in certificate.reason


def test_unserved_rows_are_in_no_slice() -> None:
    broken = [row(False, 0.9, Reason.STUDENT_MALFORMED, label="bad")] * 40
    assert judge([*rows(200, 200), *broken], output="label").passed


def test_a_student_that_never_gives_a_rare_label_does_not_pass() -> None:
    """It says "no" to all of 1,000 rows, 19 of them "yes": 98.1 % agree."""
    heldout = [*rows(981, 981, label="no"), *rows(0, 19, label="yes")]
    certificate = judge(heldout, output="label")
    assert not certificate.passed
    assert "the rare labels agree on 0 of 19 held-out rows" in certificate.reason
    assert (certificate.slices[0].kind, certificate.slices[0].name) == ("label", RARE)
    assert not certificate.slices[1].below


def test_rare_labels_are_tested_together_with_what_they_have() -> None:
    rare = [e for n in range(6) for e in rows(0, 2, label=f"label {n}")]
    good = [e for n in range(6) for e in rows(2, 2, label=f"label {n}")]
    assert not judge([*rows(600, 600, label="a"), *rare], output="label").passed
    assert judge([*rows(600, 600, label="a"), *good], output="label").passed
