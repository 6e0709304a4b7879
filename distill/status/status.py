"""The status of a task: its models, and how it is put together from what is known.

What a certificate promises is in distill.status.promise, the task's past in distill.status.history;
the state of a promoted student comes from its monitor (distill.monitor.state).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated

from pydantic import Field

from distill.dataset.templates import skeleton
from distill.monitor.state import LiveStudent
from distill.pipeline.due import Due
from distill.run.progress import Standing
from distill.status.chosen import ChosenRows, chosen_rows
from distill.status.history import (
    Demotion,
    Forced,
    ForgottenSources,
    HistoryEntry,
    Paused,
    forced_promotion,
    forgotten_sources,
    history_entries,
    last_demotion,
    pause_state,
)
from distill.status.promise import (
    Attempts,
    JudgeState,
    LabelRecall,
    TeacherCeiling,
    judge_state,
    label_recall,
    promise_sentence,
    spent_budget,
    teacher_ceiling,
)
from store.database.forgetting import Mark
from store.database.statistics import ErrorCount, ExampleCounts, Served, TaskStatistics, TokenCount
from store.jsontext import JsonObject
from store.records import (
    Action,
    Promotion,
    RaceEntry,
    Reason,
    Route,
    RunEvent,
    RunState,
)
from store.settings.tasks import TaskSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """How far the current run is."""

    run_id: str
    stage: str
    done: float
    total: float
    note: str
    seconds: Annotated[float, Field(description="since this stage began")]
    run_seconds: Annotated[float, Field(description="since the run began")]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run with its history."""

    run_id: str
    state: str
    reason: str
    started_at: float
    ended_at: float | None
    stages: Annotated[dict[str, float], Field(description="seconds by finished stage")]
    detail: Annotated[JsonObject, Field(description="the numbers of each finished stage")]


@dataclass(frozen=True, slots=True, kw_only=True)
class VaryingPrompt:
    """A system prompt that varies from request to request; what varies is treated as input."""

    template_id: str
    skeleton: Annotated[str, Field(description="what stays, with … for what varies")]
    distinct: Annotated[int, Field(description="different prompts that it was recognised from")]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUse:
    """Who read and wrote how many tokens."""

    traffic: Annotated[
        TokenCount, Field(description="the teacher, for clients; fallbacks included")
    ]
    student: Annotated[TokenCount, Field(description="the student, for clients")]
    distilling: Annotated[
        dict[str, TokenCount], Field(description="the teacher, for runs, by purpose")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """US dollars. None where no price is known for the teacher."""

    traffic: Annotated[
        float | None, Field(description="what the teacher's answers to clients cost")
    ]
    distilling: Annotated[
        float | None, Field(description="what its answers to us cost, audits included")
    ]
    purposes: Annotated[dict[str, float | None], Field(description="of distilling, by purpose")]
    saved: Annotated[
        float | None,
        Field(description="student's answers x the mean cost of a teacher's answer to this task"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """Everything about one task."""

    task: str
    traces: int
    new_traces: Annotated[int, Field(description="teacher traces that no judged run has seen yet")]
    due: Annotated[str, Field(description="why there is a run, or none")]
    stage: Stage | None
    examples: Annotated[dict[str, ExampleCounts], Field(description="of the last run, by origin")]
    last_run: RunSummary | None
    chosen: Annotated[
        ChosenRows | None, Field(description="what the last run took of the traffic, and left out")
    ]
    race: Annotated[
        list[RaceEntry], Field(description="the student kinds of the last run, cheapest first")
    ]
    certificate: Annotated[JsonObject | None, Field(description="the last one, passed or not")]
    promise: Annotated[
        str, Field(description="what is proven, as a sentence; empty when nothing is")
    ]
    attempts: Attempts | None
    ceiling: TeacherCeiling | None
    judge: Annotated[JudgeState | None, Field(description="None when no judge scores the answers")]
    labels: Annotated[
        LabelRecall | None, Field(description="recall of the labels; None where there are none")
    ]
    live: Annotated[
        LiveStudent | None, Field(description="the promoted student: step, evidence, suspicion")
    ]
    demotion: Annotated[Demotion | None, Field(description="why the last student serves no more")]
    unlearned: Annotated[
        ForgottenSources | None,
        Field(description="what the last student was trained on and was forgotten since"),
    ]
    forced: Annotated[Forced | None, Field(description="who promoted the student past the gate")]
    paused: Paused | None
    varying_prompts: list[VaryingPrompt]
    history: Annotated[
        list[HistoryEntry],
        Field(description="of the route, and what was done by hand; newest first"),
    ]
    route: Annotated[JsonObject, Field(description="what the proxy does now, and why")]
    served: Annotated[dict[str, Served], Field(description="by route: teacher, student, fallback")]
    errors: list[ErrorCount]
    tokens: TokenUse
    cost_usd: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHealth:
    """Whether traces are collected and stored."""

    ok: bool
    error: str | None
    collected: Annotated[int, Field(description="traces collected since the control plane started")]
    damaged: Annotated[int, Field(description="journal lines that could not be read")]
    set_aside: Annotated[
        int, Field(description="files in journal/damaged, to be looked at and deleted by hand")
    ] = 0
    skipped: Annotated[
        list[str],
        Field(description="entries of the journal that can be neither collected nor moved"),
    ] = field(default_factory=list)
    not_kept: Annotated[
        str | None, Field(description="why there are no copies of what is collected")
    ] = None
    forgotten: Annotated[int, Field(description="lines dropped because they were forgotten")] = 0
    forgetting: Annotated[int, Field(description="deletions that are not complete yet")] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyRoutes:
    """Which routes the proxies have."""

    workers: Annotated[int, Field(description="of the proxy, that run")]
    current: Annotated[int, Field(description="of these, with the routes published last")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Every task, and the control plane itself."""

    version: str
    at: float
    store: StoreHealth
    students: Annotated[dict[str, str], Field(description="each wanted student's state")]
    tasks: list[TaskStatus]
    proxies: Annotated[
        ProxyRoutes | None, Field(description="None as long as no worker has reported")
    ] = None


def task_status(
    *,
    task: str,
    statistics: TaskStatistics,
    standing: Standing | None,
    events: Sequence[RunEvent],
    promotions: Sequence[Promotion],
    actions: Sequence[Action],
    live: LiveStudent | None,
    route: Route | None,
    due: Due | None,
    settings: TaskSettings,
    now: float,
    mark: Mark | None = None,
) -> TaskStatus:
    """Puts one task's status together.

    `events`: the history of its last run, oldest first. `promotions`, `actions`: the history of its
    route and of commands by hand, newest first. `route`: what is published, if anything. `mark`:
    what the student that was promoted last was trained on and was forgotten since.
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
        examples=statistics.examples,
        last_run=_run_summary(events),
        chosen=chosen_rows(events),
        race=_race(certificate, events),
        certificate=certificate,
        promise=promise_sentence(latest, certificate),
        attempts=spent_budget(certificate),
        ceiling=teacher_ceiling(certificate),
        judge=judge_state(certificate),
        labels=label_recall(certificate),
        live=live,
        demotion=last_demotion(latest),
        unlearned=forgotten_sources(latest, mark),
        forced=forced_promotion(latest),
        paused=pause_state(actions, settings),
        varying_prompts=_varying_prompts(route or (latest.route if latest else None)),
        history=history_entries(promotions, actions),
        route=_route(task, route, latest),
        served=statistics.served,
        errors=statistics.errors,
        tokens=TokenUse(
            traffic=statistics.traffic,
            student=statistics.student,
            distilling=statistics.distilling,
        ),
        cost_usd=Money(
            traffic=statistics.traffic_cost,
            distilling=statistics.distilling_cost,
            purposes=statistics.distilling_costs,
            saved=None if mean is None else mean * answered,
        ),
    )


def _varying_prompts(route: Route | None) -> list[VaryingPrompt]:
    """The prompts of this route that were recognised as varying."""
    return [
        VaryingPrompt(
            template_id=template.template_id,
            skeleton=skeleton(template),
            distinct=template.distinct,
        )
        for template in (route.templates if route is not None else [])
    ]


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


def _certificate(promotion: Promotion | None, events: Sequence[RunEvent]) -> JsonObject | None:
    """The certificate of the last run, passed or not, else that of the serving student."""
    last = events[-1] if events else None
    if last and last.state in (RunState.PROMOTED, RunState.REJECTED):
        certificate: JsonObject | None = last.detail.get("certificate")
        return certificate
    if promotion is not None and promotion.certificate is not None:
        return asdict(promotion.certificate)
    return None


def _race(certificate: JsonObject | None, events: Sequence[RunEvent]) -> list[RaceEntry]:
    """The race of the last run, else that of the student that serves.

    A run that is under way has it once its students are trained.
    """
    trained = next((e.detail for e in events if e.state is RunState.TRAINED), {})
    entries = trained.get("race") or (certificate or {}).get("race") or []
    return [RaceEntry(**entry) for entry in entries]


def _route(task: str, route: Route | None, latest: Promotion | None) -> JsonObject:
    if route is None:
        demoted = latest is not None and latest.target == "teacher"
        reason = Reason.DEMOTED if demoted else Reason.NO_STUDENT
        return {"task": task, "target": "teacher", "reason": reason.value}
    fields = asdict(route)
    terms: JsonObject = fields.pop("terms")  # shown among the other fields
    return {**fields, **terms}
