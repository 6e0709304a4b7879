"""What the status page says of each task: the answer's shape, and how it is put together.

The student's way is in distill.status.live, its certificate in distill.status.promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, Field

from distill.monitor.standing import LiveStanding
from distill.pipeline.due import Due
from distill.run.progress import Standing
from distill.status import live as status_live
from distill.status import promise as status_promise
from distill.status.forgotten import Unlearned, unlearned
from distill.status.live import Demotion, Forced, Live, Paused, Turn, VaryingPrompt
from distill.status.promise import Attempts, JudgeState, TeacherCeiling
from store.database.forgetting import Mark
from store.database.statistics import TaskStatistics
from store.records import (
    Action,
    Promotion,
    Reason,
    Route,
    RunEvent,
    RunState,
)
from store.settings.tasks import TaskSettings


class Stage(BaseModel):
    """Where the run under way is."""

    run_id: str
    stage: str
    done: float
    total: float
    note: str
    seconds: float = Field(description="since this stage began")
    run_seconds: float = Field(description="since the run began")


class Examples(BaseModel):
    """The last run's training items of one origin."""

    kept: int = 0
    rejected: int = 0
    reasons: dict[str, int] = Field(default_factory=dict, description="of the rejected ones")


class RunSummary(BaseModel):
    """A run with its history."""

    run_id: str
    state: str
    reason: str
    started_at: float
    ended_at: float | None
    stages: dict[str, float] = Field(description="seconds by finished stage")
    detail: dict[str, Any] = Field(description="the numbers that each stage left, by stage")


class Served(BaseModel):
    """Requests that went one way: teacher, student or fallback."""

    requests: int
    errors: int
    p50_ms: float | None = Field(description="until the whole answer")
    p95_ms: float | None
    recent_requests: int = Field(description="of the last hour alone, as the next two")
    recent_p50_ms: float | None
    recent_p95_ms: float | None
    reasons: dict[str, int]


class Tokens(BaseModel):
    """Tokens that were read and written in a number of calls."""

    calls: int
    input: int
    output: int


class TokenUse(BaseModel):
    """Who read and wrote how much."""

    traffic: Tokens = Field(description="the teacher, for clients; fallbacks included")
    student: Tokens = Field(description="the student, for clients")
    distilling: dict[str, Tokens] = Field(description="the teacher, for runs, by purpose")


class ErrorCount(BaseModel):
    """One kind of error that clients met."""

    status_code: int
    type: str
    requests: int


class Money(BaseModel):
    """US dollars. None where no price is known for the teacher."""

    traffic: float | None = Field(description="what the teacher's answers to clients cost")
    distilling: float | None = Field(description="what its answers to us cost, audits included")
    purposes: dict[str, float | None] = Field(description="of distilling, by purpose")
    saved: float | None = Field(
        description="student's answers x the mean cost of a teacher's answer to this task"
    )


class TaskStatus(BaseModel):
    """Everything about one task."""

    task: str
    traces: int
    new_traces: int = Field(description="teacher traces that no judged run has seen yet")
    due: str = Field(description="why there is a run, or none")
    stage: Stage | None
    examples: dict[str, Examples] = Field(description="of the last run, by origin")
    last_run: RunSummary | None
    certificate: dict[str, Any] | None = Field(description="the last one, passed or not")
    promise: str = Field(description="what is proven, as a sentence; empty when nothing is")
    attempts: Attempts | None
    ceiling: TeacherCeiling | None
    judge: JudgeState | None = Field(description="None when no judge scores the answers")
    live: Live | None = Field(description="the promoted student: step, evidence, suspicion")
    demotion: Demotion | None = Field(description="why the last student serves no more")
    unlearned: Unlearned | None = Field(
        description="what the last student learned from and was forgotten"
    )
    forced: Forced | None = Field(description="who promoted the student past the gate")
    paused: Paused | None
    varying_prompts: list[VaryingPrompt]
    history: list[Turn] = Field(description="of the route, and what was done by hand; newest first")
    route: dict[str, Any] = Field(description="what the proxy does now, and why")
    served: dict[str, Served] = Field(description="by route: teacher, student, fallback")
    errors: list[ErrorCount]
    tokens: TokenUse
    cost_usd: Money


class StoreHealth(BaseModel):
    """How collecting and storing are doing."""

    ok: bool
    error: str | None
    collected: int = Field(description="traces collected since the control plane started")
    damaged: int = Field(description="journal lines that could not be read")
    forgotten: int = Field(default=0, description="lines that were dropped: of what was forgotten")
    forgetting: int = Field(default=0, description="forgettings that have not come to their end")


class Status(BaseModel):
    """Every task, and the control plane itself."""

    version: str
    at: float
    store: StoreHealth
    students: dict[str, str] = Field(description="each wanted student's state")
    tasks: list[TaskStatus]


def task_status(
    *,
    task: str,
    statistics: TaskStatistics,
    standing: Standing | None,
    events: Sequence[RunEvent],
    promotions: Sequence[Promotion],
    actions: Sequence[Action],
    live: LiveStanding | None,
    route: Route | None,
    due: Due | None,
    settings: TaskSettings,
    now: float,
    mark: Mark | None = None,
) -> TaskStatus:
    """Puts one task's status together.

    `events`: the history of its last run, oldest first. `promotions`, `actions`: the history of its
    route and of what was done by hand, newest first. `route`: what is published, if anything.
    `mark`: of the student that was promoted last.
    """
    latest = promotions[0] if promotions else None
    certificate = _certificate(latest, events)
    student = statistics.served.get("student")
    answered = student.requests if student else 0
    mean = statistics.mean_teacher_cost
    return TaskStatus(
        task=task,
        traces=statistics.traces,
        new_traces=statistics.new_traces,
        due=due.reason if due else "not checked yet",
        stage=_stage(standing, now),
        examples={name: Examples(**asdict(e)) for name, e in statistics.examples.items()},
        last_run=_run_summary(events),
        certificate=certificate,
        promise=status_promise.promise(latest, certificate),
        attempts=status_promise.attempts(certificate),
        ceiling=status_promise.ceiling(certificate),
        judge=status_promise.judge(certificate),
        live=status_live.live(live, settings),
        demotion=status_live.demotion(latest),
        unlearned=unlearned(latest, mark),
        forced=status_live.forced(latest),
        paused=status_live.paused(actions, settings),
        varying_prompts=status_live.varying_prompts(route or (latest.route if latest else None)),
        history=status_live.history(promotions, actions),
        route=_route(task, route, latest),
        served={name: Served(**asdict(s)) for name, s in statistics.served.items()},
        errors=[ErrorCount(**asdict(e)) for e in statistics.errors],
        tokens=TokenUse(
            traffic=Tokens(**asdict(statistics.traffic)),
            student=Tokens(**asdict(statistics.student)),
            distilling={n: Tokens(**asdict(t)) for n, t in statistics.distilling.items()},
        ),
        cost_usd=Money(
            traffic=statistics.traffic_cost,
            distilling=statistics.distilling_cost,
            purposes=statistics.distilling_costs,
            saved=None if mean is None else mean * answered,
        ),
    )


def _stage(standing: Standing | None, now: float) -> Stage | None:
    if standing is None:
        return None
    return Stage(
        run_id=standing.run_id,
        stage=standing.stage,
        done=standing.done,
        total=standing.total,
        note=standing.note,
        seconds=round(now - standing.stage_started_at, 1),
        run_seconds=round(now - standing.run_started_at, 1),
    )


def _run_summary(events: Sequence[RunEvent]) -> RunSummary | None:
    if not events:
        return None
    last = events[-1]
    finished = [e for e in events if not e.state.ended]
    first = events[0]
    return RunSummary(
        run_id=last.run_id,
        state=last.state,
        reason=last.reason,
        started_at=first.at - first.seconds,
        ended_at=last.at if last.state.ended else None,
        stages={e.state.value: e.seconds for e in finished},
        detail={e.state.value: e.detail for e in finished},
    )


def _certificate(promotion: Promotion | None, events: Sequence[RunEvent]) -> dict[str, Any] | None:
    """The one that the last run earned or failed to earn, else the one that is served under."""
    last = events[-1] if events else None
    if last and last.state in (RunState.PROMOTED, RunState.REJECTED):
        found: dict[str, Any] | None = last.detail.get("certificate")
        return found
    if promotion is not None and promotion.certificate is not None:
        return asdict(promotion.certificate)
    return None


def _route(task: str, route: Route | None, latest: Promotion | None) -> dict[str, Any]:
    if route is None:
        demoted = latest is not None and latest.target == "teacher"
        reason = Reason.DEMOTED if demoted else Reason.NO_STUDENT
        return {"task": task, "target": "teacher", "reason": reason.value}
    return asdict(route)
