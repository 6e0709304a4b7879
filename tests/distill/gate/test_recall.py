"""The recall of each label: named where it is not proven, demanded where it is protected."""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from distill.gate.bounds import fewest, lower_bound
from distill.gate.cutoffs import Cutoff, choose_cutoffs
from distill.gate.gate import attempt_alpha
from distill.gate.slices import RARE
from store.records import Certificate, Evaluation, OutputKind, Reason
from store.settings.tasks import GateSettings
from tests.helpers.gate_samples import GATE, chosen, judge, row, rows

PROTECTED = GATE.model_copy(update={"protect": ["yes"]})


def answered(teacher: str, student: str | None, n: int = 1, **changes: Any) -> list[Evaluation]:
    """So many rows with these two answers."""
    one = replace(
        row(teacher == student),
        teacher_output=teacher,
        student_output=student,
        score=float(teacher == student),
        **changes,
    )
    return [replace(one, input_hash=f"{teacher} {place}") for place in range(n)]


def of_json(**fields: Any) -> str:
    return json.dumps(fields)


def call(function: str) -> str:
    return json.dumps({"name": function, "arguments": {}})


def recall_of(certificate: Certificate, name: str) -> tuple[int, float, bool]:
    [one] = [r for r in certificate.recalls if r.name == name]
    return one.n, one.agreed, name in certificate.unproven_labels


# ---- a student that never gives a rare answer --------------------------------------------------

KINDS: list[tuple[OutputKind, str, str]] = [
    ("label", "no", "yes"),
    ("tools", call("reply"), call("escalate")),
    ("json", of_json(team="a", urgent=False), of_json(team="a", urgent=True)),
]


@pytest.mark.parametrize(("output", "usual", "rare"), KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_a_student_that_says_no_to_everything_does_not_pass(
    output: OutputKind, usual: str, rare: str, seed: int
) -> None:
    """1,000 logged rows, 19 of them rare, through the split, the cutoffs and the gate."""
    rng = np.random.default_rng(seed)
    logged = [*answered(usual, usual, 981), *answered(rare, usual, 19)]
    part = rng.choice(["train", "calibration", "heldout"], 1000, p=[0.5, 0.2, 0.3])
    sure = rng.random(1000)
    split = {
        name: [
            replace(e, confidence=float(sure[place]))
            for place, e in enumerate(logged)
            if part[place] == name
        ]
        for name in ("calibration", "heldout")
    }
    certificate = judge(
        split["heldout"],
        *chosen(split["calibration"], len(split["heldout"])),
        output=output,
        fields={"team", "urgent"},
    )
    assert not certificate.passed, certificate.reason


@pytest.mark.parametrize("wrong", [2, 4, 8, 19])
def test_however_few_rows_of_the_only_rare_label_are_always_wrong(wrong: int) -> None:
    heldout = [*rows(600, 600, label="no"), *answered("yes", "no", wrong)]
    certificate = judge(heldout, output="label")
    assert not certificate.passed
    assert f"agree on 0 of {wrong} held-out rows" in certificate.reason


def test_one_rare_label_that_is_always_wrong_is_not_hidden_by_the_other_rare_ones() -> None:
    good = [e for n in range(20) for e in rows(5, 5, label=f"label {n}")]
    heldout = [*rows(600, 600, label="a"), *good, *answered("b", "a", 5)]
    certificate = judge(heldout, output="label")
    assert not certificate.passed
    assert "one label agrees on 0 of 5 held-out rows" in certificate.reason
    assert [s.name for s in certificate.slices if s.below] == ["b"]
    assert RARE in {s.name for s in certificate.slices}


def test_a_label_that_cannot_be_proven_wrong_costs_the_others_no_power() -> None:
    single = [e for n in range(200) for e in rows(1, 1, label=f"label {n}")]
    for others in ([], single):
        heldout = [*rows(900, 900, label="a"), *others, *answered("b", "a", 6)]
        assert not judge(heldout, output="label").passed


# ---- named in the certificate ------------------------------------------------------------------


def test_labels_without_a_proof_are_named_with_what_they_have() -> None:
    heldout = [
        *rows(400, 400, label="a"),
        *rows(10, 11, label="b"),
        *[row(False, 0.9, Reason.STUDENT_MALFORMED, label="c")] * 3,
    ]
    certificate = judge(heldout, output="label", known={"a", "b", "c", "only in train"})
    assert certificate.passed
    assert certificate.unproven_labels == ["c", "only in train", "b"]
    assert recall_of(certificate, "a") == (400, 400.0, False)
    assert recall_of(certificate, "b") == (11, 10.0, True)
    assert recall_of(certificate, "only in train") == (0, 0.0, True)
    assert "is not proven for 3 of 4 labels" in certificate.reason
    assert "only in train" not in certificate.reason  # a reason is logged, answers are not


def test_a_recall_counts_groups_by_the_mean_of_their_rows() -> None:
    pair = [replace(row(agrees, label="yes"), group=1) for agrees in (True, False)]
    alone = rows(40, 40, label="yes")
    certificate = judge([*pair, *alone, *rows(200, 200, label="no")], output="label")
    [one] = [r for r in certificate.recalls if r.name == "yes"]
    assert (one.n, one.agreed) == (41, 40.5)
    assert one.low == lower_bound(40.5, 41, attempt_alpha(GATE, 1))


def test_a_part_of_an_answer_is_enough_to_agree_and_not_for_its_label() -> None:
    """At agree_at 0.5 every row agrees, though the student never says that it is urgent."""
    usual, rare = of_json(team="a", urgent=False), of_json(team="a", urgent=True)
    wrong = [replace(e, agrees=True) for e in answered(rare, usual, 30)]
    certificate = judge([*answered(usual, usual, 600), *wrong], output="json", fields={"urgent"})
    assert not certificate.passed
    assert "one field agrees on 0 of 30" in certificate.reason
    assert recall_of(certificate, "urgent=true") == (30, 0.0, True)
    assert {r.name for r in certificate.recalls} == {"urgent=true", "urgent=false"}


def test_a_judges_verdict_is_no_proof_of_a_label() -> None:
    """The judge calls `no` as good as `yes`; whether `yes` is given is compared exactly."""
    lenient = [replace(e, agrees=True, scorer="judge") for e in answered("yes", "no", 40)]
    heldout = [*rows(600, 600, label="no"), *lenient]
    certificate = judge(heldout, output="label", settings=PROTECTED)
    assert not certificate.passed
    assert recall_of(certificate, "yes") == (40, 0.0, True)
    assert judge(heldout, output="label").passed  # not protected: the judge decides


# ---- protected labels --------------------------------------------------------------------------


@pytest.mark.parametrize(("output", "usual", "rare"), KINDS)
def test_a_protected_label_passes_with_its_proof_alone(
    output: OutputKind, usual: str, rare: str
) -> None:
    name = {"label": "yes", "tools": "escalate", "json": "urgent=true"}[output]
    settings = GATE.model_copy(update={"protect": [f" {name}"]})
    needed = fewest(0.85, attempt_alpha(GATE, 1))
    heldout = [*answered(usual, usual, 600), *answered(rare, rare, needed)]
    certificate = judge(heldout, output=output, settings=settings)
    assert certificate.passed, certificate.reason
    assert certificate.recalls[0].protected
    assert judge(heldout[:-1], output=output).passed
    rejected = judge(heldout[:-1], output=output, settings=settings)
    assert not rejected.passed
    assert (
        f"protected {name}: agrees on {needed - 1} of {needed - 1} served held-out rows"
        in rejected.reason
    )
    assert "about 1 more are needed" in rejected.reason


def test_the_proof_of_a_protected_label_is_of_the_attempts_error_probability() -> None:
    heldout = [*rows(900, 900, label="no"), *rows(32, 32, label="yes")]
    assert judge(heldout, output="label", settings=PROTECTED).passed
    assert not judge(heldout, output="label", settings=PROTECTED, attempt=5).passed


def test_what_a_protected_label_lacks_is_said() -> None:
    heldout = [*rows(900, 900, label="no"), *rows(18, 20, label="yes")]
    reason = judge(heldout, output="label", settings=PROTECTED).reason
    assert "protected yes: agrees on 18 of 20 served held-out rows, lower bound 0.6" in reason
    missing = int(reason.partition("about ")[2].partition(" more")[0])
    assert lower_bound(0.9 * (20 + missing), 20 + missing, 0.025) >= 0.85
    hopeless = judge([*heldout, *rows(0, 2, label="yes")], output="label", settings=PROTECTED)
    assert "if it goes on like this, more of them will not prove it" in hopeless.reason


def test_a_protected_label_that_the_student_is_never_served_on_is_not_proven() -> None:
    unserved = [row(False, 0.9, Reason.STUDENT_MALFORMED, label="yes")] * 40
    reason = judge(
        [*rows(900, 900, label="no"), *unserved], output="label", settings=PROTECTED
    ).reason
    assert "protected yes: agrees on 0 of 0 served held-out rows" in reason


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("label", "protected yes: no answer of the teacher has it; correct gate.protect"),
        ("text", "protected yes: answers in free text have no labels"),
    ],
)
def test_an_unknown_protected_label_is_said_and_nothing_is_promoted(
    output: OutputKind, says: str
) -> None:
    certificate = judge(
        rows(900, 900, label="Yes"), output=output, settings=PROTECTED, known={"Yes"}
    )
    assert not certificate.passed
    assert says in certificate.reason


def test_the_first_cutoff_is_one_that_can_prove_the_protected_labels() -> None:
    """The student is sure of `no` and less so of `yes`: the likeliest cutoff alone serves none."""

    def answers(scale: int) -> list[Evaluation]:
        return [
            *rows(60 * scale, 60 * scale, confidence=0.9, label="no"),
            *rows(20 * scale, 20 * scale, confidence=0.6, label="yes"),
            *rows(0, scale, confidence=0.6, label="no"),
        ]

    plain, protecting = chosen(answers(5)), chosen_for(answers(5), PROTECTED)
    assert plain[0].coverage < 0.8 < protecting[0].coverage
    certificate = judge(answers(5), *protecting, output="label", settings=PROTECTED)
    assert certificate.passed, certificate.reason


def chosen_for(calibration: list[Evaluation], settings: GateSettings) -> list[Cutoff]:
    return choose_cutoffs(
        calibration, settings, heldout=len(calibration), alpha=0.025, output="label"
    )


@pytest.mark.parametrize("n", [31, 60])
def test_a_protected_label_at_the_floor_passes_with_at_most_the_error_probability(n: int) -> None:
    """Everything else agrees; what has to agree of its n rows is found by trying, then exact."""

    def passes(agreed: int) -> bool:
        heldout = [*rows(300, 300, label="no"), *rows(agreed, n, label="yes")]
        return judge(heldout, output="label", settings=PROTECTED).passed

    fewest_agreed = bisect_left(range(n + 1), True, key=passes)
    assert passes(n)
    assert stats.binom.sf(fewest_agreed - 1, n, 0.85) <= attempt_alpha(GATE, 1)
