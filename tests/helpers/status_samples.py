"""A status with one task in each state, made by the product's own code."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from pydantic import TypeAdapter

from distill.monitor.detector import DetectorState
from distill.monitor.evidence import NO_COMPARISONS
from distill.monitor.state import AuditState, LiveStudent
from distill.pipeline.due import Due
from distill.run.progress import Standing
from distill.status.status import Status, StoreHealth, TaskStatus, task_status
from store.database.comparisons import ComparisonCounts
from store.database.statistics import ExampleCounts, Served, TaskStatistics, TokenCount
from store.ids import new_id
from store.records import (
    Ceiling,
    Promotion,
    PromptTemplate,
    RunState,
)
from store.settings.tasks import TaskSettings
from tests.helpers.samples import a_certificate, a_promotion, a_route, a_run_event, an_action

NOW = 1_772_000_000.0
STUDENT = new_id()
REASON = "40 of 40 agree; the bound over held-out and live rows is 0.957 ≥ 0.95"


def detector(**changes: Any) -> DetectorState:
    values = {"n": 412, "bad": 9, "tolerated": 0.05, "level": 0.12, "run_length": 5000.0}
    return DetectorState(**{**values, **changes})


def audits(**changes: Any) -> AuditState:
    values = {"rate": 0.05, "owed": 2, "dropped": 0, "dropped_for": {}}
    return AuditState(**{**values, **changes})


def suspicion(**changes: DetectorState) -> dict[str, DetectorState]:
    return {
        "disagreement": detector(),
        "faults": detector(bad=2, tolerated=0.02, level=0.05),
        "unsure": detector(bad=40, tolerated=0.5, level=0.0),
        **changes,
    }


CHOSEN = {  # by a run
    "rows": {"train": 210, "calibration": 60, "heldout": 131},
    "groups": {"train": 210, "calibration": 60, "heldout": 99},
    "left_out": {"cut_off": 3, "other_snapshot": 41, "refusal": 5},
    "snapshots": {"current": ["gpt-4o-2024-08-06"], "other": ["gpt-4o-2024-05-13"]},
}


def a_live_student(**changes: Any) -> LiveStudent:
    """A student in canary that is doing well."""
    values: dict[str, Any] = {
        "student_id": STUDENT,
        "step": "canary",
        "share": 0.05,
        "shares": [0.05, 0.25, 1.0],
        "next_share": 0.25,
        "promoted_at": NOW - 7200,
        "step_at": NOW - 1800,
        "rows": 18,
        "groups": 18,
        "groups_agreed": 18,
        "groups_needed": 30,
        "reason": "18 of the 30 comparisons that this step waits for",
        "waits_for": "",
        "comparisons": {
            "shadow": ComparisonCounts(60, 52, 51),
            "audit": ComparisonCounts(18, 18, 18),
            "feedback": NO_COMPARISONS,
        },
        "shed": 4,
        "audits": audits(),
        "suspicion": suspicion(),
    }
    return LiveStudent(**{**values, **changes})


def some_numbers(task: str, **changes: Any) -> TaskStatistics:
    def served(requests: int, p50: float, p95: float, **reasons: int) -> Served:
        return Served(
            requests=requests,
            errors=0,
            p50_ms=p50,
            p95_ms=p95,
            recent_requests=requests // 10,
            recent_p50_ms=p50,
            recent_p95_ms=p95,
            reasons=reasons,
        )

    values: dict[str, Any] = {
        "task": task,
        "traces": 4212,
        "new_traces": 37,
        "served": {
            "teacher": served(3400, 912.4, 2140.0, not_in_share=2400, no_student=1000),
            "student": served(790, 41.2, 96.0, certified=790),
            "fallback": served(22, 980.0, 2300.0, student_unsure=22),
        },
        "errors": [],
        "traffic": TokenCount(calls=3422, input=1_204_000, output=88_000),
        "student": TokenCount(calls=790, input=280_000, output=21_000),
        "traffic_cost": 3.112,
        "mean_teacher_cost": 0.00091,
        "distilling": {
            "policy": TokenCount(calls=1, input=5_000, output=600),
            "answers": TokenCount(calls=300, input=40_000, output=4_400),
            "audits": TokenCount(calls=18, input=6_300, output=460),
        },
        "distilling_cost": 0.1542,
        "distilling_costs": {"policy": 0.0148, "answers": 0.1232, "audits": 0.0162},
        "examples": {
            "trace": ExampleCounts(kept=160),
            "synthetic": ExampleCounts(kept=300, rejected=17, reasons={"duplicate": 17}),
        },
    }
    return TaskStatistics(**{**values, **changes})


def one_task(task: str, *promotions: Promotion, **changes: Any) -> TaskStatus:
    """A task whose route has this history, newest first."""
    passed = {"passed": True, "lower_bound": 0.9528, "attempt": 1, "alpha": 0.025}
    ceiling = Ceiling(n=40, agreed=39, share=0.975, low=0.868, high=0.999)
    certificate = a_certificate(
        **{
            "task": task,
            "at": NOW - 7200,
            **passed,
            "ceiling": ceiling,
            **changes.pop("judged", {}),
        }
    )
    promotions = tuple(replace(p, task=task, certificate=certificate) for p in promotions)
    run_id = new_id()
    state = RunState.PROMOTED if certificate.passed else RunState.REJECTED
    events = [
        a_run_event(run_id, 0, task=task, at=NOW - 9000, detail=changes.pop("chosen", {})),
        a_run_event(run_id, 1, task=task, state=RunState.TRAINED, seconds=61.5, detail={}),
        a_run_event(
            run_id,
            2,
            task=task,
            state=state,
            at=NOW - 7200,
            reason=certificate.reason,
            detail={"certificate": asdict(certificate)},
        ),
    ]
    latest = promotions[0] if promotions else None
    values: dict[str, Any] = {
        "statistics": some_numbers(task),
        "standing": None,
        "events": events,
        "promotions": promotions,
        "actions": [],
        "live": None,
        "route": latest.route if latest is not None and latest.target == "student" else None,
        "due": Due(False, "collecting: 37 of 200 new teacher traces"),
        "settings": TaskSettings(),
        "now": NOW,
    }
    return task_status(task=task, **{**values, **changes})


def a_promotion_to(state: str, at: float, **changes: Any) -> Promotion:
    share = {"shadow": 0.0, "canary": 0.05, "live": 1.0}.get(state, 0.0)
    values: dict[str, Any] = {"state": state, "at": at, "actor": "rollout", "reason": REASON}
    if state == "demoted":
        values |= {"target": "teacher", "route": None, "actor": "audit"}
    else:
        values["route"] = a_route(
            step=state, share=share, forced=changes.get("forced", False), cutoff=0.71
        )
    return a_promotion(**{"run_id": STUDENT, **values, **changes})


def every_state() -> Status:
    """One task in each state."""
    gate = a_promotion_to("shadow", NOW - 7200, actor="gate", reason="lower bound 0.953 ≥ 0.95")
    canary = a_promotion_to("canary", NOW - 1800)
    template = PromptTemplate(
        template_id="9f" * 8,
        shape="3c" * 8,
        literals=["You sort tickets. Today is ", ". Agent on duty: ", "."],
        holes=[12, 40],
        distinct=31,
    )
    varied = a_route(step="shadow", share=0.0, templates=[template], cutoff=0.71)
    fail = {"passed": False, "lower_bound": 0.9042, "score": 0.931, "reason": "0.904 < 0.95"}
    low = Ceiling(n=60, agreed=52, share=0.867, low=0.754, high=0.941)
    return Status(
        version="0.1.0",
        at=NOW,
        store=StoreHealth(ok=True, error=None, collected=4212, damaged=0),
        students={"tickets": "ready", "orders": "ready"},
        tasks=[
            one_task(
                "tickets",
                a_promotion_to(
                    "shadow", NOW - 7200, actor="gate", route=varied, reason=gate.reason
                ),
                live=a_live_student(
                    step="shadow",
                    share=0.0,
                    next_share=0.05,
                    rows=12,
                    groups=12,
                    groups_agreed=12,
                    comparisons={"shadow": ComparisonCounts(14, 12, 12)},
                    audits=audits(rate=0.0, owed=0),
                    reason="12 of the 30 comparisons that this step waits for",
                ),
            ),
            one_task("orders", canary, gate, live=a_live_student(), chosen=CHOSEN),
            one_task(
                "reviews",
                a_promotion_to("live", NOW - 600),
                canary,
                gate,
                live=a_live_student(
                    step="live",
                    share=1.0,
                    next_share=None,
                    rows=240,
                    groups=200,
                    groups_agreed=190.5,
                    audits=audits(rate=0.013),
                    suspicion=suspicion(disagreement=detector(n=318, bad=21, level=0.72)),
                    reason="the last step",
                ),
            ),
            one_task(
                "refunds",
                a_promotion_to(
                    "live",
                    NOW - 300,
                    forced=True,
                    actor="support app",
                    reason="the held-out rows are from before the new policy",
                ),
                judged=fail | {"attempt": 2, "alpha": 0.05 / 6},
                live=a_live_student(
                    step="live", share=1.0, next_share=None, audits=audits(rate=0.2)
                ),
            ),
            one_task(
                "returns",
                a_promotion_to(
                    "demoted",
                    NOW - 120,
                    reason="17 of the last 41 audits disagree: more than the tolerated 5 %",
                    suspect_since=NOW - 900,
                ),
                a_promotion_to("live", NOW - 4000),
                due=Due(False, "cooling down for another 480 s after a demotion"),
            ),
            one_task(
                "summaries",
                judged=fail | {"ceiling": low, "scorer": "judge", "attempt": 3, "alpha": 0.05 / 12},
            ),
            one_task(
                "triage",
                canary,
                gate,
                actions=[an_action(at=NOW - 60, actor="support app")],
                route=a_route(target="teacher", reason="paused", step="canary", share=0.05),
            ),
            one_task(
                "greetings",
                events=[],
                standing=Standing(
                    run_id=new_id(),
                    stage="train",
                    done=120,
                    total=400,
                    note="real+synthetic: loss 0.41",
                    stage_started_at=NOW - 75,
                    run_started_at=NOW - 100,
                ),
                due=Due(True, "due: 212 teacher traces"),
            ),
        ],
    )


def status_json(status: Status) -> dict[str, Any]:
    """A status as the API sends it."""
    sent: dict[str, Any] = TypeAdapter(Status).dump_python(status, mode="json")
    return sent
