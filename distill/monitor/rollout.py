"""From the certificate to all of the traffic, and back: what follows from the evidence. No I/O.

    shadow ──▶ canary (a share of the conversations) ──▶ canary (a larger one) ──▶ live
       └─────────────────────────┴───── demoted ◀──────────────┴────────────────────┘

`decide` says whether a student stays on its step, goes on to the next one or is demoted, and
`audit_rate` how much of what it serves is audited. Both depend on past evidence alone: the same
evidence gives the same decision after a restart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from distill.gate.bounds import upper_bound
from distill.monitor.detector import DetectorState
from store.records import Promotion, Route, Step
from store.settings.tasks import AuditSettings, RolloutSettings, TaskSettings

FULL_RATE_AUDITS = 100  # audits at the first share; from then on it falls as 1 / audits
SUSPICIOUS_LEVEL = 0.5  # level of a detector from which audits are back at the first share


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of a student since it was promoted.

    The counts are of groups of servable comparisons from fair samples, shadow and audits. Feedback
    is no fair sample: a complaint counts for `disagreement` alone.
    """

    since: float  # when it was promoted to its first step
    n: int = 0
    agreed: float = 0.0  # sum of the groups' means
    most_agreed: float = 0.0  # for an upper bound: see distill.gate.tally
    rows: int = 0  # the comparisons themselves
    step_n: int = 0  # since the present step began
    step_agreed: float = 0.0
    step_rows: int = 0
    bound: float = 0.0  # lower bound of the agreement, held-out and live groups together
    live_bound: float = 0.0  # the same of the live groups alone
    disagreement: DetectorState  # over servable comparisons and complaints
    faults: DetectorState  # over requests that the student was asked
    unsure: DetectorState  # over its complete answers: below the cutoff or not
    # over servable comparisons in which the teacher gives a protected label, by the label
    recall: Mapping[str, DetectorState] = field(default_factory=dict)
    complaints: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutDecision:
    """What happens to a student, and why."""

    action: Literal["stay", "advance", "demote"]
    step: Step  # afterwards; of a demoted student, the step that it was on
    share: float  # of the conversations that it serves afterwards
    reason: str
    suspect_since: float | None = None  # demoted: from when on it disagreed with the teacher


def audit_rate(*, audits: int, level: float, settings: AuditSettings, forced: bool) -> float:
    """The share of what a student serves that is audited now.

    `audits`: how many groups were audited since it was promoted. `level`: of the detector of
    disagreement, 0 to 1. The first FULL_RATE_AUDITS are at the first share; then the share falls as
    their inverse, so that each further one says as much as those before, until it reaches the last
    share.
    Suspicion raises it again, to the first share at SUSPICIOUS_LEVEL. A student that was promoted
    by hand has a share of its own throughout. A `first_share` below `last_share` counts as
    `last_share`.
    """
    if forced:
        return settings.forced_share
    first = max(settings.first_share, settings.last_share)
    calm = max(settings.last_share, first * min(1.0, FULL_RATE_AUDITS / max(audits, 1)))
    suspicion = min(1.0, max(0.0, level / SUSPICIOUS_LEVEL))
    # within the two also when the sum is rounded up
    return min(first, calm + (first - calm) * suspicion)


def audits_at_last_share(settings: AuditSettings) -> int:
    """After how many audited groups the calm rate has reached the last share."""
    first = max(settings.first_share, settings.last_share)
    return math.ceil(FULL_RATE_AUDITS * first / settings.last_share) + 1  # rounding


def larger_shares(route: Route, settings: RolloutSettings) -> list[float]:
    """The shares of the steps after that of the route, in order."""
    return [share for share in settings.shares if share > route.share]


def decide(
    promotion: Promotion, evidence: Evidence, settings: TaskSettings, now: float
) -> RolloutDecision:
    """Whether the student of a promotion stays on its step, goes on to the next one, or goes back.

    It is demoted when a detector has raised an alarm, or when it is hopeless: the agreement over
    all live groups is below the threshold, by a bound that holds whenever one looks. It goes on
    when the step has its groups and the bound over held-out and live groups has reached the
    threshold; to the last step when the live groups alone prove it. One that was promoted by hand
    stays where it was put, or is demoted. Raises ValueError on a promotion of the teacher: it has
    no student.
    """
    route = promotion.route
    if promotion.target != "student" or route is None:
        raise ValueError(
            f"task {promotion.task}: the teacher answers, there is no student to judge"
        )
    certificate = promotion.certificate
    threshold = certificate.threshold if certificate else settings.gate.threshold
    reason, since = _demotion_reason(evidence, threshold, 1 - settings.gate.confidence)
    if reason:
        return RolloutDecision(
            action="demote",
            step=route.step,
            share=0.0,
            reason=reason,
            suspect_since=None if since is None else min(since, now),
        )

    larger = larger_shares(route, settings.rollout)
    if promotion.forced or (route.step == "live" and not larger):
        counts = f"{_live_text(evidence)} since the promotion"
        by_hand = ", promoted by hand past the gate" if promotion.forced else ""
        return _stay(route, evidence, f"{_step_name(route)}{by_hand}: {counts}")
    if not larger:  # the settings have changed since the last step
        return RolloutDecision(
            action="advance",
            step="live",
            share=route.share,
            reason=f"live: {_percent(route.share)} of the traffic is the last step now",
        )
    return _advance_or_wait(route, evidence, larger, threshold, settings.rollout)


def _advance_or_wait(
    route: Route,
    evidence: Evidence,
    larger: Sequence[float],
    threshold: float,
    settings: RolloutSettings,
) -> RolloutDecision:
    """Goes on to the first of the larger shares, or says what the step waits for."""
    counts = _counts_text(
        evidence.step_n, evidence.step_agreed, evidence.step_rows, settings.min_comparisons
    )
    if evidence.step_n < settings.min_comparisons:
        return _stay(route, evidence, f"{_step_name(route)}: {counts}")
    bound = f"the agreement is at least {evidence.bound:.4f}, {threshold:g} is needed"
    if not evidence.bound >= threshold:
        return _stay(route, evidence, f"{_step_name(route)}: {counts}; {bound}")
    if len(larger) == 1 and settings.confirm and not evidence.live_bound >= threshold:
        live = f"{_live_text(evidence)} live"
        alone = f"these alone prove {evidence.live_bound:.4f}, {threshold:g} is needed"
        return _stay(route, evidence, f"{_step_name(route)}: {live}; {alone}")
    return RolloutDecision(
        action="advance",
        step="live" if len(larger) == 1 else "canary",
        share=larger[0],
        reason=f"on to {_percent(larger[0])}: {counts} in {_step_name(route)}; {bound}",
    )


def _stay(route: Route, evidence: Evidence, reason: str) -> RolloutDecision:
    detectors = (
        evidence.disagreement,
        evidence.faults,
        evidence.unsure,
        *evidence.recall.values(),
    )
    if max(detector.level for detector in detectors) >= SUSPICIOUS_LEVEL:
        reason = f"{reason}; under suspicion"
    return RolloutDecision(action="stay", step=route.step, share=route.share, reason=reason)


def _demotion_reason(
    evidence: Evidence, threshold: float, alpha: float
) -> tuple[str, float | None]:
    """Why the student is demoted, empty when it is not, and since when its answers are suspect.

    Faults and low confidence are no evidence against the answers that it gave.
    """
    disagreement, faults, unsure = evidence.disagreement, evidence.faults, evidence.unsure
    if disagreement.alarm:
        reason = _alarm_reason(disagreement, "comparisons disagree")
        if evidence.complaints:
            answers = "1 answer" if evidence.complaints == 1 else f"{evidence.complaints} answers"
            reason += f"; clients complained about {answers}"
        since = evidence.since if disagreement.since is None else disagreement.since
        return reason, since
    for label, recall in evidence.recall.items():
        if recall.alarm:
            reason = _alarm_reason(recall, f"comparisons with the protected label {label} disagree")
            return reason, evidence.since if recall.since is None else recall.since
    if faults.alarm:
        return _alarm_reason(faults, "requests to the student failed"), None
    if unsure.alarm:
        return _alarm_reason(unsure, "answers were below the cutoff"), None
    highest = upper_bound(evidence.most_agreed, evidence.n, alpha) if evidence.n else 1.0
    if highest < threshold:
        counts = _live_text(evidence)
        bound = f"the agreement is at most {highest:.4f}, {threshold:g} is needed"
        return f"hopeless: {counts}; {bound}", evidence.since
    return "", None


def _alarm_reason(detector: DetectorState, what: str) -> str:
    tolerated = f"more than the {_percent(detector.tolerated)} that are tolerated"
    return f"{detector.suspects_bad} of the last {detector.suspects} {what}: {tolerated}"


def _step_name(route: Route) -> str:
    """The step, as the status shows it: `shadow`, `canary at 5 %`."""
    return route.step if route.step == "shadow" else f"{route.step} at {_percent(route.share)}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _live_text(evidence: Evidence) -> str:
    return _counts_text(evidence.n, evidence.agreed, evidence.rows)


def _counts_text(n: int, agreed: float, rows: int, needed: int = 0) -> str:
    """The number of groups, and how many of them agree; comparisons where each is a group."""
    seen = f"{n} of {needed}" if n < needed else f"{n}"
    grouped = rows > n
    noun = ("group" if grouped else "comparison") + ("" if seen == "1" else "s")
    counted = f"{seen} {noun} ({rows} comparisons)" if grouped else f"{seen} {noun}"
    if n == 0:
        return counted
    if agreed == n > 1:
        return f"{counted}, all agree"
    some = f"{agreed:.1f}".removesuffix(".0")
    return f"{counted}, {some} {'agrees' if agreed == 1 else 'agree'}"
