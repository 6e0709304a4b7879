"""The demo's report, as one JSON object, and the checks of its promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from demo.backtest.report import agreement, times
from demo.drive.driver import SentRequest, Status
from store.jsontext import JsonMapping, JsonObject


def task_report(
    *,
    status: Status,
    ramp: JsonMapping | None,
    exchanges: Sequence[SentRequest],
    right: Sequence[bool],
) -> JsonObject:
    """One task: its run, its certificate, its way to live, and its fresh traffic.

    `right`: for each request whether its answer is the teacher's.
    """
    last = status["last_run"]
    by_student = [ok for e, ok in zip(exchanges, right, strict=True) if e.route == "student"]
    routes = sorted({e.route or "none" for e in exchanges})
    return {
        "state": last["state"],
        "reason": last["reason"],
        "traces": status["traces"],
        "examples": {
            origin: {"kept": e["kept"], "rejected": e["rejected"]}
            for origin, e in status["examples"].items()
        },
        "seconds": last["stages"],
        "training": last["detail"].get("trained"),
        "certificate": status["certificate"],
        "ramp": ramp,
        "fresh": {
            "n": len(exchanges),
            "errors": sum(e.error is not None for e in exchanges),
            "student_share": round(len(by_student) / len(exchanges), 4),
            "student_agreement": agreement(by_student),
            "agreement": agreement(right),
            "by_route": {
                name: times([e.latency_ms for e in exchanges if (e.route or "none") == name])
                for name in routes
            },
            "reasons": dict(Counter(e.reason or "none" for e in exchanges)),
        },
    }


def total_report(
    *,
    tasks: Mapping[str, JsonObject],
    sabotage: JsonMapping | None,
    statuses: Sequence[Status],
    settings: JsonMapping,
    client_errors: int,
    seconds: float,
) -> JsonObject:
    """The whole demo. Money is counted by the product itself, at the stated price."""
    costs = [status["cost_usd"] for status in statuses]
    return {
        "tasks": dict(tasks),
        "sabotage": sabotage,
        "settings": dict(settings),
        "client_errors": client_errors,
        "cost_usd": {
            name: round(sum(cost[name] or 0.0 for cost in costs), 6)
            for name in ("traffic", "distilling", "saved")
        },
        "seconds": round(seconds, 1),
    }


def judge(report: JsonMapping) -> list[str]:
    """The broken promises in words; empty without any."""
    faults = []
    if report["client_errors"]:
        faults.append(f"{report['client_errors']} requests ended in an error")
    for name, task in report["tasks"].items():
        fresh = task["fresh"]
        if task["state"] != "promoted":
            faults.append(f"{name}: {task['state']} ({task['reason']})")
            continue
        if fresh["student_share"] <= 0.5:
            share = fresh["student_share"]
            faults.append(f"{name}: its student answered only {share:.0%} of the fresh traffic")
        threshold = task["certificate"]["threshold"]
        for what in ("agreement", "student_agreement"):
            share = fresh[what]["share"]
            if share is not None and share < threshold:
                faults.append(f"{name}: {what} {share:.3f} on fresh traffic, promised {threshold}")
        if not task["ramp"] or task["ramp"]["steps"][-1]["step"] != "live":
            faults.append(f"{name}: its student did not get to live")
    return faults + _sabotage_faults(report["sabotage"])


def _sabotage_faults(sabotage: JsonMapping | None) -> list[str]:
    if sabotage is None:
        return ["there was no student to damage"]
    faults = []
    for what in ("errors", "wrong"):
        if sabotage[what]:
            faults.append(
                f"{sabotage['task']}: clients saw {sabotage[what]} {what} answers of a damaged "
                "student"
            )
    if sabotage["steps"][-1]["step"] != "teacher":
        faults.append(f"{sabotage['task']}: a damaged student was not demoted")
    return faults
