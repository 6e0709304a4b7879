"""Commands given by hand: pause, resume, promote, demote, retrain.

Each is recorded as an Action with who gave it and why, and takes effect at once. A command is
decided and written in one transaction, so that no step of the rollout and no demotion comes in
between.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from distill.pipeline.promotion import saved_route
from store.database.actions import actions_of_task, append_action, paused_tasks
from store.database.database import Database
from store.database.promotions import append_promotion, promotions_of_task
from store.database.runs import ended_runs, latest_run_id, stage_detail
from store.database.store import Store
from store.errors import CommandRefused, RunError
from store.ids import later_id, new_id
from store.records import (
    Action,
    Certificate,
    Command,
    Promotion,
    Route,
    RunEvent,
    RunState,
)
from store.settings.config import Config

MAX_PROMOTIONS = 1000  # of a task's history, searched for the route of a demoted student

log = logging.getLogger("understudy.commands")
_CERTIFICATE = TypeAdapter(Certificate)


@dataclass(frozen=True, slots=True)
class PromotionCandidate:
    """The student that a promotion by hand promotes, and whether that goes past the gate."""

    run_id: str
    forced: bool
    what: str  # which student it is, in words
    promotion: Promotion | None = None  # the last one with this student; None: it never served
    rejected: RunEvent | None = None  # how the gate turned it down


def promotion_candidate(
    history: Sequence[Promotion], ended: Sequence[RunEvent], *, force: bool
) -> PromotionCandidate:
    """The student that a promotion by hand means.

    `history`: the task's promotions, newest first. `ended`: the last events of its ended runs,
    oldest first. Raises CommandRefused that says why there is none, and what to do.

    A student that waits in shadow or canary is meant whether forced or not: it has its certificate.
    Past the gate, the newer one of the student that was demoted last and of the run that was
    rejected last is meant.
    """
    latest = history[0] if history else None
    if latest is not None and latest.run_id is not None and latest.state in ("shadow", "canary"):
        return PromotionCandidate(
            latest.run_id, latest.forced, f"the student in {latest.state}", latest
        )
    since = latest.at if latest is not None else 0.0
    runs = [e for e in ended if e.at > since]
    rejected = next((e for e in reversed(runs) if e.state is RunState.REJECTED), None)
    demoted = _demoted(history)
    if rejected is not None:
        if not force:
            raise CommandRefused(
                f"the gate turned the last student down ({rejected.reason}); --force promotes it "
                "past the gate, `retrain` makes another"
            )
        return PromotionCandidate(rejected.run_id, True, "the rejected student", rejected=rejected)
    if demoted is not None and latest is not None:
        if not force:
            raise CommandRefused(
                f"the student was demoted by {latest.actor} ({latest.reason}); --force brings it "
                "back past the gate, `retrain` makes one that earns a fresh certificate"
            )
        return PromotionCandidate(str(demoted.run_id), True, "the demoted student", demoted)
    if latest is not None and latest.target == "student":
        raise CommandRefused("its student is live already")
    if runs:
        raise CommandRefused(
            f"the last run failed ({runs[-1].reason}) and left no student; mend the cause, then "
            "`retrain`"
        )
    raise CommandRefused("no run has made a student yet; `retrain` starts one")


def _demoted(history: Sequence[Promotion]) -> Promotion | None:
    """The last promotion of the student that is demoted now, if one is."""
    if not history or history[0].target != "teacher":
        return None
    demoted = history[0].run_id
    return next(
        (
            p
            for p in history
            if p.target == "student" and p.route and p.run_id and demoted in (None, p.run_id)
        ),
        None,
    )


class Commands:
    """Carries out commands in the store, and has their effect published."""

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        clock: Callable[[], float],
        follow: Callable[[], Awaitable[None]],
    ) -> None:
        """`follow` makes routes and students what the store says, and is awaited after each."""
        self._store, self._config = store, config
        self._clock, self._follow = clock, follow

    async def do(
        self, task: str, command: Command, *, actor: str, reason: str = "", force: bool = False
    ) -> str:
        """Carries a command out. Returns a sentence that says what was done.

        Raises CommandRefused, with nothing changed, when the task does not allow it now.
        """
        done = await self._store.run(
            self._do, task, command, actor=actor, reason=reason, force=force
        )
        log.info("task %s: %s by %s", task, command, actor)
        await self._follow()
        return done

    async def demote_affected(self, task: str, actor: str) -> str:
        """Demotes a student that learned from something that this actor had forgotten."""
        return await self.do(
            task, "demote", actor=actor, reason="it learned from what was forgotten"
        )

    def _do(
        self, db: Database, task: str, command: Command, *, actor: str, reason: str, force: bool
    ) -> str:
        with db.transaction():
            last = next(iter(actions_of_task(db, task, 1)), None)
            # later than the last one, also when the clock was set back
            now = max(self._clock(), last.at + 1e-6) if last is not None else self._clock()
            if command == "promote":
                promotion, done = self._promote(
                    db, task, actor=actor, reason=reason, force=force, now=now
                )
            elif command == "demote":
                promotion, done = self._demote(db, task, actor, reason, now)
            else:
                promotion, done = None, self._mark(db, task, command)
            action = Action(
                action_id=later_id(_last_id(db, task, last)),
                task=task,
                command=command,
                actor=actor,
                reason=reason,
                at=now,
                forced=promotion is not None and promotion.forced,
            )
            append_action(db, action)
            if promotion is not None:
                append_promotion(db, promotion)
        return done

    def _mark(self, db: Database, task: str, command: Command) -> str:
        """The effect of a command that changes nothing but its action."""
        by_config = self._config.task(task).paused
        if command == "pause":
            return "paused: no runs, and the teacher answers everything until `resume`"
        if command == "resume":
            if by_config:
                return "resumed by hand, but the config pauses it too: it stays paused"
            return "resumed: runs start again, and its student serves as it did before"
        paused = by_config or task in paused_tasks(db)
        return "a run is due now" + (
            ", but it waits for `resume`: the task is paused" if paused else ""
        )

    def _promote(
        self, db: Database, task: str, *, actor: str, reason: str, force: bool, now: float
    ) -> tuple[Promotion, str]:
        history = promotions_of_task(db, task, MAX_PROMOTIONS)
        candidate = promotion_candidate(history, ended_runs(db, task), force=force)
        at = _after(history, now)
        route, certificate = self._route(db, candidate), _certificate(candidate)
        share = self._config.task(task).rollout.shares[-1]
        promotion = Promotion(
            promotion_id=new_id(),
            task=task,
            target="student",
            state="live",
            reason=reason or f"promoted by hand: {candidate.what}",
            actor=actor,
            at=at,
            run_id=candidate.run_id,
            certificate=certificate,
            route=replace(route, step="live", share=share, forced=candidate.forced, at=at),
            forced=candidate.forced,
        )
        past = " past the gate" if candidate.forced else ""
        return promotion, f"promoted{past}: {candidate.what} is live with a share of {share:.0%}"

    def _demote(
        self, db: Database, task: str, actor: str, reason: str, now: float
    ) -> tuple[Promotion, str]:
        history = promotions_of_task(db, task, 1)
        if not history or history[0].target != "student":
            raise CommandRefused("it has no student to demote: the teacher answers already")
        last = history[0]
        demotion = Promotion(
            promotion_id=new_id(),
            task=task,
            target="teacher",
            state="demoted",
            reason=reason or "demoted by hand",
            actor=actor,
            at=_after(history, now),
            run_id=last.run_id,
            certificate=last.certificate,
        )
        return demotion, f"demoted from {last.state}: the teacher answers"

    def _route(self, db: Database, candidate: PromotionCandidate) -> Route:
        """The route that the candidate was judged with. Raises CommandRefused if it is missing."""
        folder = self._config.runs_dir / candidate.run_id
        if candidate.promotion is not None and candidate.promotion.route is not None:
            route = candidate.promotion.route
        else:
            try:
                kept = saved_route(folder)
            except RunError as error:
                raise CommandRefused(f"{error}; `retrain` makes another student") from None
            if kept is None:
                why = candidate.rejected.reason if candidate.rejected else "it was never judged"
                raise CommandRefused(
                    f"the last run left no judged student ({why}); `retrain` starts another run"
                )
            route = kept
        adapter = stage_detail(db, candidate.run_id, "trained").get("adapter")
        if not adapter or not (folder / Path(str(adapter))).is_dir():
            raise CommandRefused(
                f"the adapter of run {candidate.run_id} is gone; `retrain` makes another student"
            )
        return route


def _last_id(db: Database, task: str, last: Action | None) -> str | None:
    """The greatest id of the task's runs and of its last command."""
    known = [latest_run_id(db, task), last.action_id if last is not None else None]
    return max((one for one in known if one is not None), default=None)


def _after(history: Sequence[Promotion], now: float) -> float:
    """Now; but after the last promotion also when the clock was set back."""
    return max(now, history[0].at + 1e-6) if history else now


def _certificate(candidate: PromotionCandidate) -> Certificate | None:
    """The certificate of the candidate."""
    if candidate.promotion is not None:
        return candidate.promotion.certificate
    detail: Any = candidate.rejected.detail.get("certificate") if candidate.rejected else None
    try:
        return _CERTIFICATE.validate_python(detail) if detail else None
    except ValidationError:  # of an older version: the promotion is forced with or without it
        return None
