"""One promoted student under watch: what it is compared on, what is known of it, what follows.

Each comparison is written to the store, shown to the dossier and judged before the next one, so
that the evidence is the same in the store and in memory, and in the same order. A verdict that
moves the student is appended to the task's history only if nobody else has moved it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from distill.evaluate.judge import Judge
from distill.evaluate.scorers import score
from distill.monitor.audits import MAX_PENDING_S, Audits
from distill.monitor.comparisons import Pair, compared
from distill.monitor.evidence import Dossier, read_dossier
from distill.monitor.rollout import Verdict, judge
from distill.monitor.sampling import Draw
from distill.monitor.shadow import Shadow
from distill.monitor.standing import LiveStanding
from distill.students.students import ReadyStudent
from distill.teacher.client import TeacherClient
from store.database.comparisons import ComparisonOutcome
from store.database.database import Database
from store.database.promotions import promotions_of_task
from store.database.store import Store
from store.database.traces import RequestOutcome, unaudited_traces
from store.ids import new_id
from store.records import (
    Comparison,
    LoggedExchange,
    Promotion,
    Reason,
    Route,
    TeacherCall,
)
from store.settings.tasks import TaskSettings

log = logging.getLogger("understudy.live")

TICK_S = 1e-6  # two comparisons of a student are never of the same time
# Proxies read the routes some times a second: until then they route by the ones before.
ROUTES_ARE_READ_S = 1.0
MAX_PROMOTIONS = 1000
FOR_SHADOW = (Reason.SHADOW, Reason.NOT_IN_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveParts:
    """What watching students needs from outside."""

    store: Store
    clock: Callable[[], float]
    draw: Draw
    settings: Callable[[str], TaskSettings]  # by task
    ready: Callable[[], Mapping[str, ReadyStudent]]  # the students that answer now, by task
    # (teacher as clients name it, student's run, task, what to do with each paid call) → a client;
    # raises TeacherError when there is no such teacher
    teacher: Callable[[str, str, str, Callable[[TeacherCall], None]], TeacherClient]
    follow: Callable[[], Awaitable[None]]  # makes students and routes what the store says


class Case:
    """The watch over one promoted student."""

    def __init__(self, promotion: Promotion, dossier: Dossier, parts: LiveParts) -> None:
        self.promotion = promotion
        self.dossier = dossier
        self.closed = False  # the student was demoted, or another one took its place
        self._parts = parts
        self._task = promotion.task
        self._reason = promotion.reason
        self._lock = asyncio.Lock()  # one comparison at a time
        self._calls: list[TeacherCall] = []  # paid, not in the store yet
        self._clients: dict[str, TeacherClient] = {}
        self._shadow = Shadow(
            self._task,
            route=lambda: self.route,
            base_url=self._base_url,
            trace=self._trace,
            record=self._record,
            clock=parts.clock,
        )
        self._audits = Audits(
            self._task,
            teacher=self._teacher,
            trace=self._trace,
            record=self._record,
            clock=parts.clock,
        )

    @property
    def route(self) -> Route:
        """The route of the step that the student is on."""
        assert self.promotion.route is not None, "a student is promoted with a route"
        return self.promotion.route

    @property
    def settings(self) -> TaskSettings:
        return self._parts.settings(self._task)

    def see(self, routed: RequestOutcome) -> None:
        """Takes in a request that was collected."""
        if routed.start_time <= self.dossier.promoted_at:
            return
        if routed.student_id == self.dossier.student_id:
            self.dossier.see(routed)
            if routed.served_by == "student" and routed.has_texts:
                self.consider_audit(routed.trace_id, routed.end_time)
        elif (
            routed.student_id is None
            and routed.whole
            and routed.has_texts
            and routed.served_by == "teacher"
            and routed.reason in FOR_SHADOW
            and routed.start_time > self.dossier.promoted_at + ROUTES_ARE_READ_S
            and self._parts.draw.takes(
                routed.trace_id, "shadow", self.settings.rollout.shadow_share
            )
        ):
            self._shadow.enqueue(routed.trace_id, routed.end_time)

    def consider_audit(self, trace_id: str, served_at: float) -> None:
        """Owes the audit of a served request if it is drawn, by the rate that held at its time."""
        rate = self.dossier.audit_rate_at(served_at)
        if self._parts.draw.takes(trace_id, "audit", rate):
            self._audits.enqueue(trace_id, served_at)

    async def tick(self) -> None:
        """Judges what is known now, and goes on with what is to be asked. Called at every beat."""
        async with self._lock:
            await self._judge()
        if not self.closed:
            self._shadow.start()
            self._audits.start()
        if self._calls:
            await self._write_calls()

    async def change_step(self, promotion: Promotion) -> None:
        """The student was moved to another step by somebody else."""
        async with self._lock:
            self.promotion, self._reason = promotion, promotion.reason
            self.dossier.begin_step(promotion)

    async def read_again(self) -> None:
        """Reads the dossier anew: something became known that belongs between older things."""
        async with self._lock:
            self.dossier = await self._parts.store.run(
                read_dossier,
                self.promotion,
                promoted_at=self.dossier.promoted_at,
                settings=self.settings,
            )

    def close(self) -> None:
        """Begins nothing more. What is under way comes to its end."""
        self.closed = self._shadow.closed = self._audits.closed = True

    @property
    def busy(self) -> bool:
        """Whether something is under way."""
        return self._shadow.busy or self._audits.busy

    async def stop(self) -> None:
        """Cancels what is under way. What is owed stays so, and is found again in the store."""
        self.close()
        await asyncio.gather(self._shadow.stop(), self._audits.stop())
        for client in self._clients.values():
            await client.close()
        await self._write_calls()

    def standing(self) -> LiveStanding:
        """Where the student stands. May be called from any thread."""
        dossier, route = self.dossier, self.route
        waits = {"shadow": self._shadow.wait_reason if route.share < 1 else ""}
        waits["audits"] = self._audits.wait_reason
        return LiveStanding(
            task=self._task,
            student_id=dossier.student_id,
            step=route.step,
            share=route.share,
            forced=self.promotion.forced,
            promoted_at=dossier.promoted_at,
            step_at=dossier.step_at,
            comparisons=dict(dossier.tallies),
            of_step=dict(dossier.of_step),
            audit_rate=dossier.audit_rate_at(self._parts.clock()),
            audits_owed=self._audits.pending,
            audits_dropped=self._audits.dropped.total(),
            shed=self._shadow.shed,
            disagreement=dossier.disagreement.standing(),
            faults=dossier.faults.standing(),
            unsure=dossier.unsure.standing(),
            reason=self._reason,
            waits_for="; ".join(f"{name}: {why}" for name, why in waits.items() if why),
            dropped=dict(self._audits.dropped),
        )

    # ---- comparing ------------------------------------------------------------------------------

    def _base_url(self) -> str | None:
        student = self._parts.ready().get(self._task)
        if student is None or student.student_id != self.dossier.student_id:
            return None
        return student.base_url

    async def _trace(self, trace_id: str) -> LoggedExchange | None:
        return await self._parts.store.exchange_by_id(trace_id)

    def _teacher(self, model: str) -> TeacherClient:
        if model not in self._clients:
            self._clients[model] = self._parts.teacher(
                model, self.dossier.student_id, self._task, self._calls.append
            )
        return self._clients[model]

    async def _score(self, route: Route, pair: Pair) -> float:
        teacher, student = pair.row.target, pair.student or ""
        if route.scorer != "judge":
            return score(route.scorer, teacher, student, tools=route.terms.output == "tools")
        found = Judge(self._teacher(pair.row.model), rubric=self.settings.evaluate.rubric)
        return await found(teacher, student, pair.row.messages)

    async def _record(self, pair: Pair) -> None:
        """Scores a pair, writes the comparison, and judges."""
        comparison = await compared(pair, self.route, self._score)
        async with self._lock:
            at = max(self._parts.clock(), self.dossier.last_at + TICK_S)
            comparison = replace(comparison, at=at)
            await self._write([comparison])
            self.dossier.learn(
                ComparisonOutcome(
                    trace_id=comparison.trace_id,
                    kind=comparison.kind,
                    agrees=comparison.agrees,
                    servable=comparison.servable,
                    fault=comparison.fault,
                    at=at,
                    begun=pair.begun,
                    input_hash=pair.row.input_hash,
                )
            )
            await self._judge()

    async def _write(self, comparisons: Sequence[Comparison]) -> None:
        """Puts comparisons into the store together with the calls that were paid so far."""
        calls = list(self._calls)
        await self._parts.store.write_paid_comparisons(comparisons, calls)
        del self._calls[: len(calls)]

    async def _write_calls(self) -> None:
        """The same for calls that no comparison came of."""
        async with self._lock:
            if self._calls:
                await self._write([])

    async def _judge(self) -> None:
        if self.closed:
            return
        verdict = judge(self.promotion, self.dossier.evidence(), self.settings, self._parts.clock())
        self._reason = verdict.reason
        if verdict.action == "stay":
            return
        now = max(self._parts.clock(), self.dossier.last_at, self.promotion.at + TICK_S)
        promotion = promotion_after(self.promotion, verdict, now)
        if not await self._parts.store.append_promotion_after(
            promotion, self.promotion.promotion_id
        ):
            return  # somebody else has moved it: the next beat sees to it
        log.info("task %s: %s (%s)", self._task, promotion.state, promotion.reason)
        self.promotion = promotion
        if promotion.target == "teacher":
            self.close()
        else:
            self.dossier.begin_step(promotion)
        await self._parts.follow()


async def open_case(promotion: Promotion, parts: LiveParts) -> Case:
    """Takes up the watch over a promoted student, with all that the store knows of it."""

    def read(db: Database) -> tuple[Dossier, list[tuple[str, float]]]:
        settings = parts.settings(promotion.task)
        promoted_at = began_at(db, promotion)
        dossier = read_dossier(db, promotion, promoted_at=promoted_at, settings=settings)
        since = max(promoted_at, parts.clock() - MAX_PENDING_S)
        return dossier, unaudited_traces(db, dossier.student_id, since)

    dossier, unaudited = await parts.store.run(read)
    case = Case(promotion, dossier, parts)
    for trace_id, served_at in unaudited:
        case.consider_audit(trace_id, served_at)
    return case


def began_at(db: Database, promotion: Promotion) -> float:
    """When the unbroken row of steps began that led a student to this promotion."""
    began = promotion.at
    for earlier in promotions_of_task(db, promotion.task, MAX_PROMOTIONS):
        if (earlier.at, earlier.promotion_id) > (promotion.at, promotion.promotion_id):
            continue
        if earlier.target != "student" or earlier.run_id != promotion.run_id:
            break
        began = earlier.at
    return began


def promotion_after(promotion: Promotion, verdict: Verdict, now: float) -> Promotion:
    """The next line in a task's history: the student's next step, or its end."""
    if verdict.action == "demote":
        return Promotion(
            promotion_id=new_id(),
            task=promotion.task,
            target="teacher",
            state="demoted",
            reason=verdict.reason,
            actor="audit",
            at=now,
            run_id=promotion.run_id,
            certificate=promotion.certificate,
            suspect_since=verdict.suspect_since,
        )
    assert promotion.route is not None, "a student is promoted with a route"
    return replace(
        promotion,
        promotion_id=new_id(),
        state=verdict.step,
        reason=verdict.reason,
        actor="rollout",
        at=now,
        route=replace(promotion.route, step=verdict.step, share=verdict.share, at=now),
    )
