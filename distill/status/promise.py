"""What the status says of a certificate: the promise as a sentence, and what it rests on.

Pure functions of a certificate as it stands in the history of its run, also of older versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, Field

from store.records import Promotion


class Attempts(BaseModel):
    """How often the task has tried for a certificate, and what that leaves of the error budget."""

    attempt: int = Field(description="1, 2, 3… under the fingerprints of this certificate")
    alpha: float = Field(description="chance of a wrong certificate that this attempt may take")
    alpha_spent: float = Field(description="by this attempt and those before it")
    alpha_total: float = Field(description="of all attempts that will ever be: 1 - confidence")


class TeacherCeiling(BaseModel):
    """How much the teacher agrees with itself, asked the same thing twice."""

    n: int
    agreed: int
    share: float
    low: float = Field(description="exact interval of the share, its lower end")
    high: float
    hint: str = Field(description="what it means for the threshold; empty when nothing")


class JudgeState(BaseModel):
    """Whether the judge that scored the answers was itself compared with people."""

    corrected: bool
    reason: str
    n: int = Field(default=0, description="rows that people have judged too")
    agreement: float | None = None
    sensitivity: float | None = Field(default=None, description="of the good ones, called good")
    specificity: float | None = Field(default=None, description="of the bad ones, called bad")
    bias: float | None = Field(default=None, description="mean of people - judge")


def promise(latest: Promotion | None, certificate: Mapping[str, Any] | None) -> str:
    """What is proven of the student that serves, else of the last one; empty when nothing is.

    `certificate`: the last one. A student that serves is spoken of by its own, also when a run
    after it was rejected.
    """
    serves = latest is not None and latest.target == "student"
    own = latest.certificate if latest is not None and serves else None
    found: Mapping[str, Any] | None = asdict(own) if own is not None else certificate
    if not found or found.get("lower_bound") is None:
        return ""
    bound, sure = percent(found["lower_bound"]), f"{found.get('confidence_level', 0) * 100:g} %"
    if not found.get("passed"):
        which = "The student is not proven" if serves else "The last student was not good enough"
        wanted = f"{found.get('threshold', 1) * 100:g} %"
        return f"{which}: only {bound} agreement with the teacher is certain, {wanted} is wanted."
    if latest is not None and not serves and latest.at >= found.get("at", 0):
        return f"The student was certified for at least {bound} agreement, and demoted since."
    would = "" if serves and latest is not None and latest.state != "shadow" else "would "
    return (
        f"The student agrees with the teacher on at least {bound} of what it {would}serve"
        f"{'' if would else 's'}, {sure} sure; that is about "
        f"{percent(found.get('coverage', 1))} of the requests."
    )


def attempts(certificate: Mapping[str, Any] | None) -> Attempts | None:
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


def ceiling(certificate: Mapping[str, Any] | None) -> TeacherCeiling | None:
    """The teacher's agreement with itself, and whether the threshold lies above it."""
    found = (certificate or {}).get("ceiling")
    if not certificate or not found:
        return None
    threshold = certificate["threshold"]
    hint = ""
    if threshold > found["high"]:
        hint = (
            f"the threshold of {threshold * 100:g} % lies above it: the teacher does not agree "
            "with itself so often, and no student can; lower gate.threshold, or have the prompt "
            "leave less open"
        )
    elif threshold > found["share"]:
        hint = f"the threshold of {threshold * 100:g} % may lie above it"
    return TeacherCeiling(**found, hint=hint)


def judge(certificate: Mapping[str, Any] | None) -> JudgeState | None:
    """Whether the judge was corrected by people's labels; None when no judge scored."""
    if not certificate or certificate.get("scorer") != "judge":
        return None
    found = certificate.get("judge")
    if not found:
        return JudgeState(
            corrected=False, reason="uncorrected: nobody has judged answers of this task yet"
        )
    names = ("n", "agreement", "sensitivity", "specificity", "bias")
    return JudgeState(
        corrected=True,
        reason=f"corrected by {found['n']} answers that people have judged too",
        **{name: found[name] for name in names},
    )


def percent(share: float) -> str:
    """A share as percent, rounded down: what is promised is never more than what holds."""
    tenths = int(share * 1000 + 1e-9)
    return f"{tenths // 10} %" if tenths % 10 == 0 else f"{tenths / 10:.1f} %"
