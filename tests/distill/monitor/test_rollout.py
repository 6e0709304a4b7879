"""What follows from the evidence: the decision as a table, and what holds of it whatever comes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.monitor.rollout import (
    ALARMING,
    AUDITS_AT_FIRST,
    Evidence,
    Suspicion,
    Verdict,
    audit_rate,
    judge,
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


def known(**changes: Any) -> Evidence:
    return Evidence(**{"since": 100.0, "bound": 0.96, "live_bound": 0.96, **changes})


def rows(n: int, agreed: int, **changes: Any) -> Evidence:
    """So many comparisons, all of them since the step began."""
    return known(n=n, agreed=agreed, step_n=n, step_agreed=agreed, **changes)


def alarm(**changes: Any) -> Suspicion:
    values = {"alarm": True, "level": 1.0, "tolerated": 0.05, "n": 90, "since": 700.0}
    return Suspicion(**{**values, "suspects": 12, "suspects_bad": 7, **changes})


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
        (CANARY, known(n=90, agreed=90, step_n=2, step_agreed=2), "stay", "canary", 0.25, "canary"),
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
            rows(200, 196, disagreement=Suspicion(level=ALARMING)),
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
def test_who_stays_and_who_goes_on(
    promotion: Promotion, evidence: Evidence, action: str, step: str, share: float, reason: str
) -> None:
    verdict = judge(promotion, evidence, SETTINGS, NOW)
    assert (verdict.action, verdict.step, verdict.share) == (action, step, share)
    assert verdict.reason.startswith(reason)
    assert verdict.suspect_since is None


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
            rows(90, 80, disagreement=alarm(since=None), failed_feedback=3),
            100.0,
            "7 of the last 12 comparisons disagree: more than the 5 % that are tolerated; "
            "3 answers were complained of",
        ),
        (
            rows(90, 90, faults=alarm(tolerated=0.02, suspects=40)),
            None,
            "7 of the last 40 requests found it broken: more than the 2 % that are tolerated",
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
def test_who_goes_back(
    promotion: Promotion, evidence: Evidence, since: float | None, reason: str
) -> None:
    verdict = judge(promotion, evidence, SETTINGS, NOW)
    assert (verdict.action, verdict.share) == ("demote", 0.0)
    assert verdict.reason.startswith(reason)
    assert verdict.suspect_since == since


def test_to_the_last_step_the_live_rows_prove_it_by_themselves() -> None:
    weak = rows(90, 90, live_bound=0.949)
    verdict = judge(CANARY, weak, SETTINGS, NOW)
    assert (verdict.action, verdict.share) == ("stay", 0.25)
    assert verdict.reason == (
        "canary at 25 %: 90 comparisons, all agree live; by themselves they prove 0.9490, "
        "0.95 is needed"
    )
    assert judge(SHADOW, weak, SETTINGS, NOW).action == "advance"  # not to the last one yet
    trusting = TaskSettings(rollout=RolloutSettings(confirm=False))
    assert judge(CANARY, weak, trusting, NOW).action == "advance"


def test_without_rows_to_wait_for_a_step_is_passed_at_once() -> None:
    at_once = TaskSettings(rollout=RolloutSettings(shares=[0.1, 1.0], min_comparisons=0))
    verdict = judge(SHADOW, known(), at_once, NOW)
    assert (verdict.action, verdict.step, verdict.share) == ("advance", "canary", 0.1)
    assert verdict.reason.startswith("on to 10 %: 0 comparisons in shadow; ")
    assert judge(SHADOW, known(bound=0.9), at_once, NOW).action == "stay"


def test_the_certificate_says_what_is_needed() -> None:
    """Not the settings, which may have changed since."""
    strict = replace(SHADOW, certificate=a_certificate(threshold=0.99))
    assert judge(strict, rows(30, 30, bound=0.98), SETTINGS, NOW).action == "stay"
    bare = replace(SHADOW, certificate=None)
    assert judge(bare, rows(30, 30, bound=0.98), SETTINGS, NOW).action == "advance"


def test_nobody_to_judge() -> None:
    down = a_promotion(target="teacher", state="demoted", route=None)
    with pytest.raises(ValueError, match="no student to judge"):
        judge(down, known(), SETTINGS, NOW)


def test_a_student_climbs_all_steps() -> None:
    promotion, seen = SHADOW, []
    for _ in range(10):
        verdict = judge(promotion, rows(40, 40), SETTINGS, NOW)
        if verdict.action == "stay":
            break
        seen.append((verdict.step, verdict.share))
        promotion = on(verdict.step, verdict.share)
    assert seen == [("canary", 0.05), ("canary", 0.25), ("live", 1.0)]


# ---- whatever comes ----------------------------------------------------------------------------

UNIT = st.floats(0, 1)
SHARES = st.lists(st.floats(0.01, 1), min_size=1, max_size=4, unique=True).map(sorted)
SUSPICIONS = st.builds(
    Suspicion,
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
        step_n=step_n,
        step_agreed=draw(st.integers(0, step_n)),
        bound=draw(UNIT),
        live_bound=draw(UNIT),
        disagreement=draw(SUSPICIONS),
        faults=draw(SUSPICIONS),
        unsure=draw(SUSPICIONS),
        failed_feedback=draw(st.integers(0, 3)),
    )


@st.composite
def promotions(draw: st.DrawFn) -> Promotion:
    step: Step = draw(st.sampled_from(["shadow", "canary", "live"]))
    share = 0.0 if step == "shadow" else draw(st.floats(0.01, 1))
    return on(step, share, forced=draw(st.booleans()))


@st.composite
def verdicts(draw: st.DrawFn) -> tuple[Promotion, Evidence, TaskSettings, Verdict]:
    promotion, evidence = draw(promotions()), draw(evidences())
    rollout = RolloutSettings(shares=draw(SHARES), min_comparisons=draw(st.integers(0, 200)))
    settings = TaskSettings(rollout=rollout)
    return promotion, evidence, settings, judge(promotion, evidence, settings, NOW)


@given(verdicts())
def test_what_holds_of_every_verdict(
    judged: tuple[Promotion, Evidence, TaskSettings, Verdict],
) -> None:
    promotion, evidence, settings, verdict = judged
    route = promotion.route
    assert route is not None
    assert judge(promotion, evidence, settings, NOW) == verdict
    assert verdict.reason
    alarmed = evidence.disagreement.alarm or evidence.faults.alarm or evidence.unsure.alarm
    if alarmed:
        assert verdict.action == "demote"
    if verdict.action == "demote":
        assert verdict.suspect_since is None or verdict.suspect_since <= NOW
        if evidence.disagreement.alarm:
            assert verdict.suspect_since is not None
        assert (verdict.step, verdict.share) == (route.step, 0.0)
    else:
        assert verdict.suspect_since is None
    if verdict.action == "stay":
        assert (verdict.step, verdict.share) == (route.step, route.share)
    if verdict.action == "advance":
        assert not promotion.forced
        assert verdict.share >= route.share
        assert verdict.step != "shadow"
        if verdict.share > route.share:
            larger = [share for share in settings.rollout.shares if share > route.share]
            assert verdict.share == larger[0]
            assert (verdict.step == "live") == (len(larger) == 1)
            assert evidence.step_n >= settings.rollout.min_comparisons
            assert evidence.bound >= 0.95
            assert len(larger) > 1 or evidence.live_bound >= 0.95


# ---- how much is audited -----------------------------------------------------------------------

AUDITS = st.builds(AuditSettings, first_share=st.floats(0.01, 1), last_share=st.floats(0.001, 1))


def rate(audits: int, level: float = 0.0, **changes: Any) -> float:
    settings = AuditSettings(
        **{"first_share": 0.05, "last_share": 0.01, "forced_share": 0.2, **changes}
    )
    return audit_rate(audits=audits, level=level, settings=settings, forced=False)


def test_the_audit_rate() -> None:
    assert rate(0) == rate(AUDITS_AT_FIRST) == 0.05
    assert rate(2 * AUDITS_AT_FIRST) == pytest.approx(0.025)
    assert rate(5 * AUDITS_AT_FIRST) == pytest.approx(0.01)
    assert rate(10**6) == 0.01
    assert rate(10**6, ALARMING / 2) == pytest.approx(0.03)
    assert rate(10**6, ALARMING) == rate(10**6, 1.0) == pytest.approx(0.05)
    assert rate(0, first_share=0.01, last_share=0.05) == 0.05


@given(audits=st.integers(0, 10**6), level=UNIT, settings=AUDITS)
def test_by_hand_there_is_one_rate(audits: int, level: float, settings: AuditSettings) -> None:
    found = audit_rate(audits=audits, level=level, settings=settings, forced=True)
    assert found == settings.forced_share


@given(audits=st.integers(0, 10**5), more=st.integers(0, 10**5), settings=AUDITS, data=st.data())
def test_the_audit_rate_stays_within_first_and_last(
    audits: int, more: int, settings: AuditSettings, data: st.DataObject
) -> None:
    level, higher = sorted([data.draw(UNIT), data.draw(UNIT)])

    def at(audits: int, level: float) -> float:
        return audit_rate(audits=audits, level=level, settings=settings, forced=False)

    found = at(audits, level)
    assert settings.last_share <= found <= max(settings.first_share, settings.last_share)
    assert at(audits, higher) >= found
    assert at(audits + more, level) <= found * (1 + 1e-12)  # but for rounding
