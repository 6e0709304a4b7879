"""What the status says of a task's student: how far it has come, and what was done about it.

Shapes of the answer, and how each is made from what is known. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from pydantic import BaseModel, Field

from distill.monitor.standing import LiveStanding
from store.records import (
    Action,
    Promotion,
    Route,
)
from store.settings.tasks import TaskSettings

MAX_HISTORY = 10  # promotions shown of a task
HOLE = "\N{HORIZONTAL ELLIPSIS}"  # stands for what varies in a prompt


class VaryingPrompt(BaseModel):
    """A system prompt that varies from request to request; what varies is treated as input."""

    template_id: str
    skeleton: str = Field(description="what stays, with … for what varies")
    distinct: int = Field(description="different prompts that it was recognised from")


class Compared(BaseModel):
    """Live requests that student and teacher both answered."""

    n: int
    servable: int = Field(description="of these, how many the proxy would serve")
    agreed: int = Field(description="of the servable ones")


class Suspicion(BaseModel):
    """A change detector: it demotes the student when its level reaches 1."""

    n: int
    bad: int
    tolerated: float = Field(description="share of bad ones that does not demote")
    level: float = Field(description="its suspicion that there are more now, 0 to 1")
    run_length: float = Field(description="one false demotion in so many, at most")


class Audits(BaseModel):
    """What the student serves is asked of the teacher too, for a share of the requests."""

    rate: float
    owed: int = Field(description="drawn, and not asked yet")
    dropped: int = Field(description="drawn, and never compared")
    dropped_for: dict[str, int]


class Live(BaseModel):
    """A promoted student: its step, what the step waits for, and what was found out live."""

    student_id: str
    step: str = Field(description="shadow, canary or live")
    share: float = Field(description="of the conversations that it is certified for")
    shares: list[float] = Field(description="of all steps after the shadow")
    next_share: float | None = Field(description="of the next step; None at the last one")
    promoted_at: float
    step_at: float
    rows: int = Field(description="servable comparisons since the step began")
    rows_agreed: int
    rows_needed: int = Field(description="what a step waits for")
    reason: str = Field(description="why it stays, goes on or goes back")
    waits_for: str = Field(description="why comparing itself waits; empty when it does not")
    comparisons: dict[str, Compared] = Field(description="by kind, since it was promoted")
    shed: int = Field(description="drawn for the shadow, not asked of the student in time")
    audits: Audits
    suspicion: dict[str, Suspicion] = Field(description="`disagreement`, `faults`, `unsure`")


class Demotion(BaseModel):
    """The student was found out, or taken off by hand."""

    at: float
    actor: str
    reason: str
    run_id: str | None
    suspect_since: float | None = Field(description="from when on its answers were wrong")


class Forced(BaseModel):
    """The student serves past the gate."""

    at: float
    actor: str
    reason: str


class Paused(BaseModel):
    """No runs, and the teacher answers."""

    by: str = Field(description="who did it, or `config`")
    at: float | None = None
    reason: str = ""


class Turn(BaseModel):
    """One line of a task's history: a turn of its route, or what was done to it by hand."""

    at: float
    state: str = Field(description="shadow, canary, live, demoted; or pause, resume, retrain")
    target: str | None = Field(description="teacher or student; None where it did not change")
    share: float | None
    actor: str
    reason: str
    run_id: str | None
    forced: bool


def varying_prompts(route: Route | None) -> list[VaryingPrompt]:
    """The prompts of this route that were recognised as varying."""
    return [
        VaryingPrompt(
            template_id=t.template_id, skeleton=HOLE.join(t.literals), distinct=t.distinct
        )
        for t in (route.templates if route is not None else [])
    ]


def live(standing: LiveStanding | None, settings: TaskSettings) -> Live | None:
    """The student's way so far; None when none is promoted."""
    if standing is None:
        return None
    shares = settings.rollout.shares
    following = [s for s in shares if s > standing.share]
    of_step = [standing.of_step[kind] for kind in ("shadow", "audit") if kind in standing.of_step]
    return Live(
        student_id=standing.student_id,
        step=standing.step,
        share=standing.share,
        shares=shares,
        next_share=following[0] if following and standing.step != "live" else None,
        promoted_at=standing.promoted_at,
        step_at=standing.step_at,
        rows=sum(t.servable for t in of_step),
        rows_agreed=sum(t.agreed for t in of_step),
        rows_needed=settings.rollout.min_comparisons,
        reason=standing.reason,
        waits_for=standing.waits_for,
        comparisons={k: Compared(**asdict(t)) for k, t in standing.comparisons.items()},
        shed=standing.shed,
        audits=Audits(
            rate=standing.audit_rate,
            owed=standing.audits_owed,
            dropped=standing.audits_dropped,
            dropped_for=dict(standing.dropped),
        ),
        suspicion={
            "disagreement": Suspicion(**asdict(standing.disagreement)),
            "faults": Suspicion(**asdict(standing.faults)),
            "unsure": Suspicion(**asdict(standing.unsure)),
        },
    )


def demotion(latest: Promotion | None) -> Demotion | None:
    """Why the task's last student serves no more; None when none was demoted last."""
    if latest is None or latest.target != "teacher":
        return None
    return Demotion(
        at=latest.at,
        actor=latest.actor,
        reason=latest.reason,
        run_id=latest.run_id,
        suspect_since=latest.suspect_since,
    )


def forced(latest: Promotion | None) -> Forced | None:
    """Who has promoted the present student past the gate, if anybody."""
    if latest is None or latest.target != "student" or not latest.forced:
        return None
    return Forced(at=latest.at, actor=latest.actor, reason=latest.reason)


def paused(actions: Sequence[Action], settings: TaskSettings) -> Paused | None:
    """Whether the task is paused: by hand, or by the config. `actions`: newest first."""
    last = next((a for a in actions if a.command in ("pause", "resume")), None)
    if last is not None and last.command == "pause":
        return Paused(by=last.actor, at=last.at, reason=last.reason)
    return Paused(by="config", reason="`paused: true`") if settings.paused else None


def history(promotions: Sequence[Promotion], actions: Sequence[Action]) -> list[Turn]:
    """The last turns of a task's route and what else was done by hand, newest first."""
    turns = [
        Turn(
            at=p.at,
            state=p.state,
            target=p.target,
            share=p.route.share if p.route is not None and p.target == "student" else None,
            actor=p.actor,
            reason=p.reason,
            run_id=p.run_id,
            forced=p.forced,
        )
        for p in promotions
    ]
    turns += [
        Turn(
            at=a.at,
            state=a.command,
            target=None,
            share=None,
            actor=a.actor,
            reason=a.reason,
            run_id=None,
            forced=False,
        )
        for a in actions
        if a.command not in ("promote", "demote")  # these are turns of the route
    ]
    return sorted(turns, key=lambda t: t.at, reverse=True)[:MAX_HISTORY]
