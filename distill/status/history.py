"""The history of a task's student, as the status shows it: demoted, forced, paused, forgotten.

Pure functions of promotions and actions, and the records that they return.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from store.database.forgetting import Mark
from store.records import Action, Promotion
from store.settings.tasks import TaskSettings

MAX_HISTORY = 10  # entries shown of a task


@dataclass(frozen=True, slots=True, kw_only=True)
class Demotion:
    """The student was demoted: by its audits, or by hand."""

    at: float
    actor: str
    reason: str
    run_id: str | None
    suspect_since: Annotated[float | None, Field(description="from when on its answers were wrong")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forced:
    """The student serves past the gate."""

    at: float
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """No runs, and the teacher answers."""

    by: Annotated[str, Field(description="who did it, or `config`")]
    at: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One entry of a task's history: a change of its route, or a command by hand."""

    at: float
    state: Annotated[
        str, Field(description="shadow, canary, live, demoted; or pause, resume, retrain")
    ]
    target: Annotated[
        str | None, Field(description="teacher or student; None where it did not change")
    ]
    share: float | None
    actor: str
    reason: str
    run_id: str | None
    forced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenSources:
    """A student whose adapter was trained on traces that were forgotten since."""

    run_id: str
    traces: Annotated[int, Field(description="forgotten traces that it was trained on")]
    synthetic: Annotated[int, Field(description="and examples that were made from them")]
    at: Annotated[float, Field(description="when the last of it was forgotten")]
    says: Annotated[str, Field(description="what that means, and what to do")]


def last_demotion(latest: Promotion | None) -> Demotion | None:
    """Why the task's last student serves no more; None when it was not demoted."""
    if latest is None or latest.target != "teacher":
        return None
    return Demotion(
        at=latest.at,
        actor=latest.actor,
        reason=latest.reason,
        run_id=latest.run_id,
        suspect_since=latest.suspect_since,
    )


def forced_promotion(latest: Promotion | None) -> Forced | None:
    """Who promoted the present student past the gate, if anybody did."""
    if latest is None or latest.target != "student" or not latest.forced:
        return None
    return Forced(at=latest.at, actor=latest.actor, reason=latest.reason)


def pause_state(actions: Sequence[Action], settings: TaskSettings) -> Paused | None:
    """Whether the task is paused: by hand, or by the config. `actions`: newest first."""
    last = next((a for a in actions if a.command in ("pause", "resume")), None)
    if last is not None and last.command == "pause":
        return Paused(by=last.actor, at=last.at, reason=last.reason)
    return Paused(by="config", reason="`paused: true`") if settings.paused else None


def history_entries(
    promotions: Sequence[Promotion], actions: Sequence[Action]
) -> list[HistoryEntry]:
    """The last changes of a task's route and other commands by hand, newest first."""
    entries = [
        HistoryEntry(
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
    entries += [
        HistoryEntry(
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
        if a.command not in ("promote", "demote")  # these changed the route
    ]
    return sorted(entries, key=lambda entry: entry.at, reverse=True)[:MAX_HISTORY]


def forgotten_sources(latest: Promotion | None, mark: Mark | None) -> ForgottenSources | None:
    """What the task's last student was trained on and was forgotten since; None for nothing."""
    if latest is None or mark is None:
        return None
    made = f" and {mark.synthetic} examples made from them" if mark.synthetic else ""
    day = time.strftime("%Y-%m-%d", time.gmtime(mark.at))
    learned = f"learned from {_traces(mark.traces)}{made} that were forgotten since (last {day})"
    if latest.target == "student":
        effect = (
            f"it keeps serving, as its certificate still holds, until the next run replaces it; "
            f"`understudy retrain {latest.task}` starts one now, `understudy demote {latest.task}` "
            "lets the teacher answer until then"
        )
    else:
        effect = f"it does not serve; `understudy retrain {latest.task}` trains one without them"
    return ForgottenSources(
        run_id=mark.run_id,
        traces=mark.traces,
        synthetic=mark.synthetic,
        at=mark.at,
        says=f"{learned}: {effect}",
    )


def _traces(n: int) -> str:
    return "1 trace" if n == 1 else f"{n} traces"
