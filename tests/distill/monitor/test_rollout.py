"""Decisions on a promoted student: as a table, and as properties of any evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.monitor.detector import DetectorState
from distill.monitor.rollout import (
    FULL_RATE_AUDITS,
    SUSPICIOUS_LEVEL,
    Evidence,
    RolloutDecision,
    audit_rate,
    decide,
)
from store.records import (
    Promotion,
    Step,
)
from store.settings.tasks import AuditSettings, RolloutSettings, TaskSettings
from tests.helpers.samples import a_certificate, a_promotion, a_route

SETTINGS = TaskSettings(rollout=RolloutSettings(shares=[0.05, 0.25, 1.0], min_comparisons=30))
NOW = 1000.0


def on(step: Step, share: float, **changes: Any) -> Promotion:
    """A student on a step."""
    return a_promotion(state=step, route=a_route(step=step, share=share), at=500.0, **changes)


def detector(**changes: Any) -> DetectorState:
    values = {"n": 0, "bad": 0, "tolerated": 0.05, "level": 0.0, "run_length": 5000.0}
    return DetectorState(**{**values, **changes})


QUIET = {name: detector() for name in ("disagreement", "faults", "unsure")}


def known(**changes: Any) -> Evidence:
    bounds = {"since": 100.0, "bound": 0.96, "live_bound": 0.96}
    return Evidence(**{**bounds, **QUIET, **changes})


def rows(n: int, agreed: float, **changes: Any) -> Evidence:
    """Evidence of n comparisons, each a group of its own, all since the step began."""
    counts = {"n": n, "agreed": agreed, "most_agreed": agreed, "rows": n}
    counts |= {"step_n": n, "step_agreed": agreed, "step_rows": n}
    return known(**{**counts, **changes})


def alarm(**changes: Any) -> DetectorState:
    values = {"alarm": True, "level": 1.0, "n": 90, "since": 700.0}
    return detector(**{**values, "suspects": 12, "suspects_bad": 7, **changes})


SHADOW, CANARY, LIVE = on("shadow", 0.0), on("canary", 0.25), on("live", 1.0)
FORCED = on("live", 1.0, forced=True)


@pytest.mark.parametrize(
    ("promotion", "evidence", "action", "step", "share", "reason"),
    [
        (SHADOW, known(), "stay", "shadow", 0.0, "shadow: 0 of 30 comparisons"),
        (SHADOW, rows(12, 12), "stay", "shadow", 0.0, "shadow: 12 of 30 comparisons, all agree"),
        (SHADOW, rows(29, 28), "stay", "shadow", 0.0, "shadow: 29 of 30 comparisons, 28 agree"),
        (SHADOW, rows(1, 1), "stay", "shadow", 0.0, "shadow: 1 of 30 comparisons, 1 agrees"),
        (
            SHADOW,
            rows(30, 29, bound=0.9523),
            "advance",
            "canary",
            0.05,
            "on to 5 %: 30 comparisons, 29 agree in shadow; the agreement is at least 0.9523, "
            "0.95 is needed",
        ),
        (
            SHADOW,
            rows(30, 28, bound=0.9412),
            "stay",
            "shadow",
            0.0,
            "shadow: 30 comparisons, 28 agree; the agreement is at least 0.9412, 0.95 is needed",
        ),
        (on("canary", 0.05), rows(30, 30), "advance", "canary", 0.25, "on to 25 %: "),
        (
            CANARY,
            rows(30, 30),
            "advance",
            "live",
            1.0,
            "on to 100 %: 30 comparisons, all agree in ",
        ),
        (CANARY, rows(90, 90, step_n=2, step_agreed=2), "stay", "canary", 0.25, "canary"),
        (
            LIVE,
            rows(200, 196, bound=0.9),
            "stay",
            "live",
            1.0,
            "live at 100 %: 200 comparisons, 196 agree since the promotion",
        ),
        (
            LIVE,
            rows(200, 196, disagreement=detector(level=SUSPICIOUS_LEVEL)),
            "stay",
            "live",
            1.0,
            "live at 100 %: 200 comparisons, 196 agree since the promotion; under suspicion",
        ),
        # by hand, past the gate: no steps
        (
            FORCED,
            rows(2, 1, bound=0.0),
            "stay",
            "live",
            1.0,
            "live at 100 %, promoted by hand past the gate: 2 comparisons, 1 agrees since the ",
        ),
        (on("shadow", 0.0, forced=True), rows(99, 99), "stay", "shadow", 0.0, "shadow, promoted"),
        # the settings have changed since
        (on("canary", 0.1), rows(30, 30), "advance", "canary", 0.25, "on to 25 %"),
        (on("live", 0.5), rows(30, 30), "advance", "live", 1.0, "on to 100 %"),
        (
            on("canary", 1.0),
            known(),
            "advance",
            "live",
            1.0,
            "live: 100 % of the traffic is the last step now",
        ),
    ],
)
def test_when_a_student_stays_or_advances(
    promotion: Promotion, evidence: Evidence, action: str, step: str, share: float, reason: str
) -> None:
    decision = decide(promotion, evidence, SETTINGS, NOW)
    assert (decision.action, decision.step, decision.share) == (action, step, share)
    assert decision.reason.startswith(reason)
    assert decision.suspect_since is None


@pytest.mark.parametrize("promotion", [SHADOW, CANARY, LIVE, FORCED])
@pytest.mark.parametrize(
    ("evidence", "since", "reason"),
    [
        (
            rows(90, 80, disagreement=alarm()),
            700.0,
            "7 of the last 12 comparisons disagree: more than the 5 % that are tolerated",
        ),
        (
            rows(90, 80, disagreement=alarm(since=None), complaints=3),
            100.0,
            "7 of the last 12 comparisons disagree: more than the 5 % that are tolerated; "
            "clients complained about 3 answers",
        ),
        (
            rows(90, 90, faults=alarm(tolerated=0.02, suspects=40)),
            None,
            "7 of the last 40 requests to the student failed: more than the 2 % that are tolerated",
        ),
        (
            rows(90, 90, unsure=alarm(tolerated=0.5)),
            None,
            "7 of the last 12 answers were",
        ),
        (rows(90, 90, disagreement=alarm(since=9e9)), NOW, "7 of the last 12 comparisons"),
        (rows(80, 60), 100.0, "hopeless: 80 comparisons, 60 agree; the agreement is at most 0."),
    ],
)
def test_when_a_student_is_demoted(
    promotion: Promotion, evidence: Evidence, since: float | None, reason: str
) -> None:
    decision = decide(promotion, evidence, SETTINGS, NOW)
    assert (decision.action, decision.share) == ("demote", 0.0)
    assert decision.reason.startswith(reason)
    assert decision.suspect_since == since


def test_the_last_step_needs_proof_by_the_live_rows_alone() -> None:
    weak = rows(90, 90, live_bound=0.949)
    decision = decide(CANARY, weak, SETTINGS, NOW)
    assert (decision.action, decision.share) == ("stay", 0.25)
    assert decision.reason == (
        "canary at 25 %: 90 comparisons, all agree live; these alone prove 0.9490, 0.95 is needed"
    )
    assert decide(SHADOW, weak, SETTINGS, NOW).action == "advance"  # not to the last one yet
    trusting = TaskSettings(rollout=RolloutSettings(confirm=False))
    assert decide(CANARY, weak, trusting, NOW).action == "advance"


def test_a_step_with_min_comparisons_zero_is_passed_at_once() -> None:
    at_once = TaskSettings(rollout=RolloutSettings(shares=[0.1, 1.0], min_comparisons=0))
    decision = decide(SHADOW, known(), at_once, NOW)
    assert (decision.action, decision.step, decision.share) == ("advance", "canary", 0.1)
    assert decision.reason.startswith("on to 10 %: 0 comparisons in shadow; ")
    assert decide(SHADOW, known(bound=0.9), at_once, NOW).action == "stay"


def test_the_threshold_is_that_of_the_certificate() -> None:
    """Not that of the settings, which may have changed since."""
    strict = replace(SHADOW, certificate=a_certificate(threshold=0.99))
    assert decide(strict, rows(30, 30, bound=0.98), SETTINGS, NOW).action == "stay"
    bare = replace(SHADOW, certificate=None)
    assert decide(bare, rows(30, 30, bound=0.98), SETTINGS, NOW).action == "advance"


def test_a_promotion_of_the_teacher_cannot_be_decided_on() -> None:
    down = a_promotion(target="teacher", state="demoted", route=None)
    with pytest.raises(ValueError, match="no student to judge"):
        decide(down, known(), SETTINGS, NOW)


def test_a_good_student_climbs_all_steps() -> None:
    promotion, seen = SHADOW, []
    for _ in range(10):
        decision = decide(promotion, rows(40, 40), SETTINGS, NOW)
        if decision.action == "stay":
            break
        seen.append((decision.step, decision.share))
        promotion = on(decision.step, decision.share)
    assert seen == [("canary", 0.05), ("canary", 0.25), ("live", 1.0)]


# ---- properties --------------------------------------------------------------------------------

UNIT = st.floats(0, 1)
SHARES = st.lists(st.floats(0.01, 1), min_size=1, max_size=4, unique=True).map(sorted)
DETECTORS = st.builds(
    DetectorState,
    bad=st.integers(0, 500),
    run_length=st.just(5000.0),
    alarm=st.booleans(),
    level=UNIT,
    tolerated=UNIT,
    n=st.integers(0, 500),
    suspects=st.integers(0, 99),
    suspects_bad=st.integers(0, 99),
    since=st.none() | st.floats(0, 5000),
)


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    n = draw(st.integers(0, 400))
    agreed = draw(st.integers(0, n))
    step_n = draw(st.integers(0, n))
    return Evidence(
        since=draw(st.floats(0, 2000)),
        n=n,
        agreed=agreed,
        most_agreed=agreed,
        step_n=step_n,
        step_agreed=draw(st.integers(0, step_n)),
        bound=draw(UNIT),
        live_bound=draw(UNIT),
        disagreement=draw(DETECTORS),
        faults=draw(DETECTORS),
        unsure=draw(DETECTORS),
        complaints=draw(st.integers(0, 3)),
    )


@st.composite
def promotions(draw: st.DrawFn) -> Promotion:
    step: Step = draw(st.sampled_from(["shadow", "canary", "live"]))
    share = 0.0 if step == "shadow" else draw(st.floats(0.01, 1))
    return on(step, share, forced=draw(st.booleans()))


@st.composite
def decisions(draw: st.DrawFn) -> tuple[Promotion, Evidence, TaskSettings, RolloutDecision]:
    promotion, evidence = draw(promotions()), draw(evidences())
    rollout = RolloutSettings(shares=draw(SHARES), min_comparisons=draw(st.integers(0, 200)))
    settings = TaskSettings(rollout=rollout)
    return promotion, evidence, settings, decide(promotion, evidence, settings, NOW)


@given(decisions())
@pytest.mark.slow
def test_properties_of_every_decision(
    judged: tuple[Promotion, Evidence, TaskSettings, RolloutDecision],
) -> None:
    promotion, evidence, settings, decision = judged
    route = promotion.route
    assert route is not None
    assert decide(promotion, evidence, settings, NOW) == decision
    assert decision.reason
    alarmed = evidence.disagreement.alarm or evidence.faults.alarm or evidence.unsure.alarm
    if alarmed:
        assert decision.action == "demote"
    if decision.action == "demote":
        assert decision.suspect_since is None or decision.suspect_since <= NOW
        if evidence.disagreement.alarm:
            assert decision.suspect_since is not None
        assert (decision.step, decision.share) == (route.step, 0.0)
    else:
        assert decision.suspect_since is None
    if decision.action == "stay":
        assert (decision.step, decision.share) == (route.step, route.share)
    if decision.action == "advance":
        assert not promotion.forced
        assert decision.share >= route.share
        assert decision.step != "shadow"
        if decision.share > route.share:
            larger = [share for share in settings.rollout.shares if share > route.share]
            assert decision.share == larger[0]
            assert (decision.step == "live") == (len(larger) == 1)
            assert evidence.step_n >= settings.rollout.min_comparisons
            assert evidence.bound >= 0.95
            assert len(larger) > 1 or evidence.live_bound >= 0.95


# ---- the audit rate ---------------------------------------------------------------------------

AUDITS = st.builds(AuditSettings, first_share=st.floats(0.01, 1), last_share=st.floats(0.001, 1))


def rate(audits: int, level: float = 0.0, **changes: Any) -> float:
    settings = AuditSettings(
        **{"first_share": 0.05, "last_share": 0.01, "forced_share": 0.2, **changes}
    )
    return audit_rate(audits=audits, level=level, settings=settings, forced=False)


def test_the_audit_rate_falls_with_audits_and_rises_with_suspicion() -> None:
    assert rate(0) == rate(FULL_RATE_AUDITS) == 0.05
    assert rate(2 * FULL_RATE_AUDITS) == pytest.approx(0.025)
    assert rate(5 * FULL_RATE_AUDITS) == pytest.approx(0.01)
    assert rate(10**6) == 0.01
    assert rate(10**6, SUSPICIOUS_LEVEL / 2) == pytest.approx(0.03)
    assert rate(10**6, SUSPICIOUS_LEVEL) == rate(10**6, 1.0) == pytest.approx(0.05)
    assert rate(0, first_share=0.01, last_share=0.05) == 0.05


@given(audits=st.integers(0, 10**6), level=UNIT, settings=AUDITS)
def test_a_forced_student_has_one_audit_rate(
    audits: int, level: float, settings: AuditSettings
) -> None:
    rate_now = audit_rate(audits=audits, level=level, settings=settings, forced=True)
    assert rate_now == settings.forced_share


@given(audits=st.integers(0, 10**5), more=st.integers(0, 10**5), settings=AUDITS, data=st.data())
def test_the_audit_rate_stays_within_first_and_last(
    audits: int, more: int, settings: AuditSettings, data: st.DataObject
) -> None:
    level, higher = sorted([data.draw(UNIT), data.draw(UNIT)])

    def at(audits: int, level: float) -> float:
        return audit_rate(audits=audits, level=level, settings=settings, forced=False)

    rate_now = at(audits, level)
    assert settings.last_share <= rate_now <= max(settings.first_share, settings.last_share)
    assert at(audits, higher) >= rate_now
    assert at(audits + more, level) <= rate_now * (1 + 1e-12)  # but for rounding
