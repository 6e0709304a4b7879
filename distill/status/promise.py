"""What a certificate promises, in a sentence, and what the promise is based on.

Pure functions of a certificate as the history of its run has it, also of older versions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field

from distill.evaluate.scorers.registry import is_paid
from store.jsontext import JsonMapping
from store.records import Promotion

MAX_NAMED = 20  # unproven labels in the status; the certificate names more


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """The attempts of the task at a certificate, and the error budget that they have spent."""

    attempt: Annotated[
        int, Field(description="1, 2, 3… under the fingerprints of this certificate")
    ]
    alpha: Annotated[
        float, Field(description="chance of a wrong certificate that this attempt may take")
    ]
    alpha_spent: Annotated[float, Field(description="by this attempt and those before it")]
    alpha_total: Annotated[
        float, Field(description="of all attempts that will ever be: 1 - confidence")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherCeiling:
    """How much the teacher agrees with itself (self-consistency), asked the same thing twice."""

    n: int
    agreed: int
    share: float
    low: Annotated[float, Field(description="exact interval of the share, its lower end")]
    high: float
    hint: Annotated[str, Field(description="what it means for the threshold; empty when nothing")]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeState:
    """Whether the judge that scored the answers was itself compared with people."""

    corrected: bool
    reason: str
    n: Annotated[int, Field(description="rows that people have judged too")] = 0
    agreement: float | None = None
    sensitivity: Annotated[float | None, Field(description="of the good ones, called good")] = None
    specificity: Annotated[float | None, Field(description="of the bad ones, called bad")] = None
    bias: Annotated[float | None, Field(description="mean of people - judge")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectedLabel:
    """A label of gate.protect, and what the held-out rows prove of it."""

    name: str
    n: Annotated[int, Field(description="served held-out groups to which the teacher gives it")]
    agreed: float
    low: Annotated[float, Field(description="lower bound of the recall")]
    proven: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRecall:
    """The labels whose recall a certificate proves, and those where it does not."""

    floor: Annotated[float, Field(description="recall that counts as proven")]
    labels: Annotated[int, Field(description="that the task has")]
    unproven: Annotated[int, Field(description="of these, how many lack a proof")]
    unproven_labels: Annotated[list[str], Field(description="the first of them")]
    protected: list[ProtectedLabel]


def promise_sentence(latest: Promotion | None, certificate: JsonMapping | None) -> str:
    """What is proven of the serving student, else of the last one; empty when nothing is.

    `certificate`: the last one. For a serving student its own is used, also when a later run was
    rejected.
    """
    serves = latest is not None and latest.target == "student"
    own = latest.certificate if latest is not None and serves else None
    proven: JsonMapping | None = asdict(own) if own is not None else certificate
    if not proven or proven.get("lower_bound") is None:
        return ""
    bound = percent(proven["lower_bound"])
    confidence = f"{proven.get('confidence_level', 0) * 100:g} %"
    if not proven.get("passed"):
        which = "The student is not proven" if serves else "The last student was not good enough"
        threshold = f"{proven.get('threshold', 1) * 100:g} %"
        return (
            f"{which}: only {bound} agreement with the teacher is certain, {threshold} is wanted."
        )
    if latest is not None and not serves and latest.at >= proven.get("at", 0):
        return f"The student was certified for at least {bound} agreement, and demoted since."
    answers = latest is not None and serves and latest.state != "shadow"
    return (
        f"The student agrees with the teacher on at least {bound} of what it "
        f"{'serves' if answers else 'would serve'}, {confidence} sure; that is about "
        f"{percent(proven.get('coverage', 1))} of the requests.{_mixed(proven)}"
    )


def _mixed(certificate: JsonMapping) -> str:
    """What a certificate does not say where its rows are of any age."""
    if not certificate.get("mixed_in_time"):
        return ""
    return (
        " It was judged on rows as old as those that it learned from: of newer ones it says less."
    )


def spent_budget(certificate: JsonMapping | None) -> Attempts | None:
    """The error budget as this certificate leaves it.

    Attempt k may take alpha / (k (k + 1)), so that the first k take alpha k / (k + 1) together.
    """
    if not certificate or "attempt" not in certificate:
        return None
    k, total = int(certificate["attempt"]), 1 - float(certificate["confidence_level"])
    return Attempts(
        attempt=k,
        alpha=float(certificate["alpha"]),
        alpha_spent=total * k / (k + 1),
        alpha_total=total,
    )


def teacher_ceiling(certificate: JsonMapping | None) -> TeacherCeiling | None:
    """The teacher's agreement with itself, and whether the threshold lies above it."""
    measured = (certificate or {}).get("ceiling")
    if not certificate or not measured:
        return None
    threshold = certificate["threshold"]
    hint = ""
    if threshold > measured["high"]:
        hint = (
            f"the threshold of {threshold * 100:g} % lies above it: the teacher does not agree "
            "with itself so often, and no student can; lower gate.threshold, or have the prompt "
            "leave less open"
        )
    elif threshold > measured["share"]:
        hint = f"the threshold of {threshold * 100:g} % may lie above it"
    names = ("n", "agreed", "share", "low", "high")
    return TeacherCeiling(**{name: measured[name] for name in names}, hint=hint)


def judge_state(certificate: JsonMapping | None) -> JudgeState | None:
    """Whether the judge was corrected by people's labels; None when no judge scored."""
    if not certificate or not is_paid(certificate.get("scorer", "")):
        return None
    check = certificate.get("judge")
    if not check:
        return JudgeState(
            corrected=False, reason="uncorrected: nobody has judged answers of this task yet"
        )
    names = ("n", "agreement", "sensitivity", "specificity", "bias")
    return JudgeState(
        corrected=True,
        reason=f"corrected by {check['n']} answers that people have judged too",
        **{name: check[name] for name in names},
    )


def label_recall(certificate: JsonMapping | None) -> LabelRecall | None:
    """Which labels a certificate proves; None where the answers have none, or nothing is known."""
    recalls = (certificate or {}).get("recalls")
    if not certificate or not recalls:
        return None
    floor = float(certificate["floor"])
    unproven = certificate["unproven_labels"]
    return LabelRecall(
        floor=floor,
        labels=len(recalls),
        unproven=len(unproven),
        unproven_labels=unproven[:MAX_NAMED],
        protected=[
            ProtectedLabel(
                name=one["name"],
                n=one["n"],
                agreed=one["agreed"],
                low=one["low"],
                proven=one["low"] >= floor,
            )
            for one in recalls
            if one["protected"]
        ],
    )


def percent(share: float) -> str:
    """A share as percent, rounded down: what is promised is never more than what holds."""
    tenths = int(share * 1000 + 1e-9)
    return f"{tenths // 10} %" if tenths % 10 == 0 else f"{tenths / 10:.1f} %"
