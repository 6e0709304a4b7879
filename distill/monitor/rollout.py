"""From the certificate to all of the traffic, and back: what follows from the evidence. Pure.

    shadow ──▶ canary (a share of the conversations) ──▶ canary (a larger one) ──▶ live
       └─────────────────────────┴───── demoted ◀──────────────┴────────────────────┘

`judge` decides whether a student stays on its step, goes on to the next one or is demoted, and
`audit_rate` how much of what it serves is asked of the teacher. Both depend on the past alone, so
whoever reads the same evidence again decides the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from distill.gate.bounds import upper_bound
from store.records import (
    Promotion,
    Route,
    Step,
)
from store.settings.tasks import AuditSettings, RolloutSettings, TaskSettings

AUDITS_AT_FIRST = 100  # audits at the first share; from then on it falls as 1 / audits
ALARMING = 0.5  # level of suspicion from which audits are back at the first share


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """What a change detector says (distill.monitor.detector)."""

    alarm: bool = False
    level: float = 0.0  # 0: no suspicion; 1: alarm
    tolerated: float = 0.0  # the rate of bad observations that does not count against the student
    n: int = 0  # observations since the promotion
    suspects: int = 0  # of the last ones, those after the likeliest moment of a change
    suspects_bad: int = 0  # of the suspects
    since: float | None = None  # time of the first suspect


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of a student since it was promoted.

    The counts are of servable comparisons from fair samples, shadow and audits. A failed feedback
    is none of these: it counts for `disagreement`.
    """

    since: float  # when it was promoted to its first step
    n: int = 0
    agreed: int = 0
    step_n: int = 0  # since the present step began
    step_agreed: int = 0
    bound: float = 0.0  # lower bound of the agreement, held-out and live rows together
    live_bound: float = 0.0  # the same of the live rows by themselves
    disagreement: Suspicion = Suspicion()  # over servable comparisons and failed feedback
    faults: Suspicion = Suspicion()  # over requests that the student was asked for
    unsure: Suspicion = Suspicion()  # over its whole answers: below the cutoff or not
    failed_feedback: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows for a student, and why."""

    action: Literal["stay", "advance", "demote"]
    step: Step  # afterwards; of a demoted student, the step that it was on
    share: float  # of the conversations that it serves afterwards
    reason: str
    suspect_since: float | None = None  # demoted: from when on it disagreed with the teacher


def audit_rate(*, audits: int, level: float, settings: AuditSettings, forced: bool) -> float:
    """The share of what a student serves that is to be audited now.

    `audits`: how many it has had since it was promoted. `level`: the suspicion of the detector of
    disagreement, 0 to 1. The first AUDITS_AT_FIRST audits are at the first share; then it falls as
    their inverse, so that each further one says as much as those before, until it is at the last
    share. Suspicion brings it back up, to the first share at ALARMING. A student that was promoted
    by hand has its own share throughout. A `first_share` below `last_share` counts as `last_share`.
    """
    if forced:
        return settings.forced_share
    first = max(settings.first_share, settings.last_share)
    calm = max(settings.last_share, first * min(1.0, AUDITS_AT_FIRST / max(audits, 1)))
    alarmed = min(1.0, max(0.0, level / ALARMING))
    # within the two also when the sum is rounded up
    return min(first, calm + (first - calm) * alarmed)


def judge(promotion: Promotion, evidence: Evidence, settings: TaskSettings, now: float) -> Verdict:
    """Whether the student of a promotion stays where it is, goes on to the next step, or goes back.

    It is demoted when a detector has raised the alarm, or when it is hopeless: the agreement over
    all live rows is below the threshold, by a bound that holds whenever one looks. It goes on when
    the step has its rows and the bound over held-out and live rows is at the threshold; to the last
    step when the live rows prove it by themselves. One that was promoted by hand stays where it was
    put, or is demoted. Raises ValueError on a promotion of the teacher: there is nobody to judge.
    """
    route = promotion.route
    if promotion.target != "student" or route is None:
        raise ValueError(
            f"task {promotion.task}: the teacher answers, there is no student to judge"
        )
    certificate = promotion.certificate
    threshold = certificate.threshold if certificate else settings.gate.threshold
    because, since = _demotion(evidence, threshold, 1 - settings.gate.confidence)
    if because:
        return Verdict(
            action="demote",
            step=route.step,
            share=0.0,
            reason=because,
            suspect_since=None if since is None else min(since, now),
        )

    larger = [share for share in settings.rollout.shares if share > route.share]
    if promotion.forced or (route.step == "live" and not larger):
        found = f"{_agreement(evidence.n, evidence.agreed)} since the promotion"
        by_hand = ", promoted by hand past the gate" if promotion.forced else ""
        return _stay(route, evidence, f"{_name(route)}{by_hand}: {found}")
    if not larger:  # the settings have changed since the last step
        return Verdict(
            action="advance",
            step="live",
            share=route.share,
            reason=f"live: {_percent(route.share)} of the traffic is the last step now",
        )
    return _go_on(route, evidence, larger, threshold, settings.rollout)


def _go_on(
    route: Route,
    evidence: Evidence,
    larger: Sequence[float],
    threshold: float,
    settings: RolloutSettings,
) -> Verdict:
    """Whether a student goes on to the first of the larger shares, or what it waits for."""
    found = _agreement(evidence.step_n, evidence.step_agreed, settings.min_comparisons)
    if evidence.step_n < settings.min_comparisons:
        return _stay(route, evidence, f"{_name(route)}: {found}")
    bound = f"the agreement is at least {evidence.bound:.4f}, {threshold:g} is needed"
    if not evidence.bound >= threshold:
        return _stay(route, evidence, f"{_name(route)}: {found}; {bound}")
    if len(larger) == 1 and settings.confirm and not evidence.live_bound >= threshold:
        live = f"{_agreement(evidence.n, evidence.agreed)} live"
        alone = f"by themselves they prove {evidence.live_bound:.4f}, {threshold:g} is needed"
        return _stay(route, evidence, f"{_name(route)}: {live}; {alone}")
    return Verdict(
        action="advance",
        step="live" if len(larger) == 1 else "canary",
        share=larger[0],
        reason=f"on to {_percent(larger[0])}: {found} in {_name(route)}; {bound}",
    )


def _stay(route: Route, evidence: Evidence, reason: str) -> Verdict:
    levels = (evidence.disagreement.level, evidence.faults.level, evidence.unsure.level)
    said = f"{reason}; under suspicion" if max(levels) >= ALARMING else reason
    return Verdict(action="stay", step=route.step, share=route.share, reason=said)


def _demotion(evidence: Evidence, threshold: float, alpha: float) -> tuple[str, float | None]:
    """Why the student is to be demoted, empty when it is not, and since when its task is another.

    A student that breaks, or is unsure, says nothing against what the teacher answered so far.
    """
    wrong, broken = evidence.disagreement, evidence.faults
    if wrong.alarm:
        reason = _cry(wrong, "comparisons disagree")
        if evidence.failed_feedback:
            reason += f"; {evidence.failed_feedback} answers were complained of"
        return reason, _since(wrong, evidence)
    if broken.alarm:
        return _cry(broken, "requests found it broken"), None
    if evidence.unsure.alarm:
        return _cry(evidence.unsure, "answers were below the cutoff"), None
    most = upper_bound(evidence.agreed, evidence.n, alpha) if evidence.n else 1.0
    if most < threshold:
        found = _agreement(evidence.n, evidence.agreed)
        hopeless = f"the agreement is at most {most:.4f}, {threshold:g} is needed"
        return f"hopeless: {found}; {hopeless}", evidence.since
    return "", None


def _cry(alarm: Suspicion, what: str) -> str:
    tolerated = f"more than the {_percent(alarm.tolerated)} that are tolerated"
    return f"{alarm.suspects_bad} of the last {alarm.suspects} {what}: {tolerated}"


def _since(suspicion: Suspicion, evidence: Evidence) -> float:
    return evidence.since if suspicion.since is None else suspicion.since


def _name(route: Route) -> str:
    """The step, as the status shows it: `shadow`, `canary at 5 %`."""
    return route.step if route.step == "shadow" else f"{route.step} at {_percent(route.share)}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _agreement(n: int, agreed: int, wanted: int = 0) -> str:
    """So many comparisons, how many of them agree."""
    seen = f"{n} of {wanted}" if n < wanted else f"{n}"
    noun = "comparison" if seen == "1" else "comparisons"
    if n == 0:
        return f"{seen} {noun}"
    if agreed == n > 1:
        return f"{seen} {noun}, all agree"
    return f"{seen} {noun}, {agreed} {'agrees' if agreed == 1 else 'agree'}"
