"""The effects of the settings of the steps, the audits and the change detectors. The table comes
last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from distill.monitor.evidence import EvidenceTracker
from distill.monitor.rollout import decide
from store.database.comparisons import ComparisonOutcome
from store.records import (
    Promotion,
    Reason,
    Step,
)
from tests.helpers.effects import Effect, Raw, of_task
from tests.helpers.samples import a_certificate, a_promotion, a_route

AT = 1000.0


def promoted(step: Step, share: float, *, forced: bool = False) -> Promotion:
    """A student on a step, with a certificate that would do without live rows."""
    return a_promotion(
        state=step,
        route=a_route(step=step, share=share, at=AT),
        certificate=a_certificate(n=200, agreed=200),
        at=AT,
        forced=forced,
    )


def tracker_of(raw: Raw, promotion: Promotion) -> EvidenceTracker:
    settings = of_task(raw)
    return EvidenceTracker(promotion, AT, settings.gate.threshold, settings)


def an_audit(number: int, *, agrees: bool = True, fault: Reason | None = None) -> ComparisonOutcome:
    """The outcome of one audit."""
    return ComparisonOutcome(
        trace_id=str(number),
        kind="audit",
        agrees=agrees,
        servable=fault is None,
        fault=fault,
        at=AT + 1 + number,
        begun=AT + 1 + number,
        group=str(number),
    )


# ---- steps -------------------------------------------------------------------------------------


def steps_of_a_good_student(raw: Raw) -> list[tuple[str, float]]:
    """What a student comes to whose comparisons all agree."""
    promotion, seen = promoted("shadow", 0.0), []
    while True:
        tracker = tracker_of(raw, promotion)
        for number in range(40):
            tracker.add_comparison(an_audit(number))
        decision = decide(promotion, tracker.evidence(), of_task(raw), AT)
        if decision.action != "advance":
            return seen
        seen.append((decision.step, decision.share))
        assert promotion.route is not None
        route = replace(promotion.route, step=decision.step, share=decision.share)
        promotion = replace(promotion, state=decision.step, route=route)


def comparisons_of_a_step(raw: Raw) -> int:
    """How many a student in shadow takes until it goes on."""
    promotion = promoted("shadow", 0.0)
    tracker = tracker_of(raw, promotion)
    for number in range(100):
        if decide(promotion, tracker.evidence(), of_task(raw), AT).action == "advance":
            return number
        tracker.add_comparison(an_audit(number))
    raise AssertionError("it never goes on")


# ---- audits ------------------------------------------------------------------------------------


def audited(audits: int, *, forced: bool = False) -> Callable[[Raw], float]:
    """The share of the answers that is audited, after so many audits that agree."""

    def seen(raw: Raw) -> float:
        tracker = tracker_of(raw, promoted("live", 1.0, forced=forced))
        for number in range(audits):
            tracker.add_comparison(an_audit(number))
        return tracker.audit_rate_at(AT + 10_000)

    return seen


# ---- detectors ---------------------------------------------------------------------------------


def audits_until_demoted(raw: Raw) -> int:
    """Of a student that is wrong from now on."""
    promotion = promoted("live", 1.0)
    tracker = tracker_of(raw, promotion)
    for number in range(100):
        tracker.add_comparison(an_audit(number, agrees=False))
        decision = decide(promotion, tracker.evidence(), of_task(raw), AT)
        if decision.action == "demote" and "disagree" in decision.reason:
            return number + 1
    raise AssertionError("it is never demoted")


def demoted_at_five_percent_faults(raw: Raw) -> bool:
    """Every 20th of 4,000 requests found the student too slow."""
    promotion = promoted("live", 1.0)
    tracker = tracker_of(raw, promotion)
    for number in range(4000):
        fault = Reason.STUDENT_SLOW if number % 20 == 19 else None
        tracker.record_call(fault, AT + number, str(number))
    return decide(promotion, tracker.evidence(), of_task(raw), AT).action == "demote"


# ---- the table ---------------------------------------------------------------------------------

T = "task_defaults"

ROLLOUT: dict[str, Effect] = {
    f"{T}.rollout.shares": Effect(
        steps_of_a_good_student,
        ([0.5], [("live", 0.5)]),
        ([0.1, 0.4, 1.0], [("canary", 0.1), ("canary", 0.4), ("live", 1.0)]),
        {f"{T}.rollout.confirm": False},
    ),
    f"{T}.rollout.confirm": Effect(
        steps_of_a_good_student,
        (True, [("canary", 0.05), ("canary", 0.25)]),  # 40 rows do not prove 0.95
        (False, [("canary", 0.05), ("canary", 0.25), ("live", 1.0)]),
    ),
    f"{T}.rollout.min_comparisons": Effect(comparisons_of_a_step, (0, 0), (25, 25)),
    f"{T}.audit.first_share": Effect(audited(0), (0.05, 0.05), (0.5, 0.5)),
    f"{T}.audit.last_share": Effect(audited(1000), (0.01, 0.01), (0.02, 0.02)),
    f"{T}.audit.forced_share": Effect(audited(1000, forced=True), (0.2, 0.2), (0.9, 0.9)),
    f"{T}.audit.run_length": Effect(audits_until_demoted, (100, 3), (100_000, 6)),
    f"{T}.audit.fault_rate": Effect(demoted_at_five_percent_faults, (0.02, True), (0.2, False)),
}
