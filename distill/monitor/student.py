"""The monitor of one promoted student: shadow and audits, its evidence, and what follows from it.

Each comparison is given its group, written to the store, added to the evidence and decided on
before the next one, so that the evidence is the same in the store and in memory, and in the same
order. A decision that moves the student is appended to the task's history only if nobody else has
moved it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from distill.dataset.cut_off import is_incomplete_json
from distill.dataset.live_groups import REFERENCE, LiveGroups
from distill.evaluate.scorers.registry import SCORERS, score
from distill.gate.bounds import spread
from distill.monitor.audits import CUT_OFF, MAX_PENDING_S, Audits
from distill.monitor.comparisons import AnswerPair, compare
from distill.monitor.evidence import EvidenceTracker, load_evidence
from distill.monitor.frequent import with_inputs_that_differ
from distill.monitor.grouping import (
    catch_up,
    generic_beginnings,
    group_new,
    groups_like,
    member_of,
)
from distill.monitor.rollout import RolloutDecision, decide, larger_shares
from distill.monitor.sampling import Sampler
from distill.monitor.shadow import Shadow
from distill.monitor.state import AuditState, LiveStudent
from distill.students.students import ReadyStudent
from distill.teacher.client import TeacherClient, import_libraries
from store.database.comparisons import ComparisonOutcome
from store.database.database import Database
from store.database.promotions import promotions_of_task
from store.database.store import Store
from store.database.traces import RequestOutcome, teacher_answers_before, unaudited_traces
from store.ids import new_id
from store.records import Comparison, LoggedExchange, Promotion, Reason, Route, TeacherCall
from store.settings.tasks import TaskSettings

log = logging.getLogger("understudy.monitor")

TICK_S = 1e-6  # two comparisons of a student never have the same time
# Proxies read the routes several times a second; until then they use the former ones.
ROUTES_READ_WITHIN_S = 1.0
MAX_PROMOTIONS = 1000
SHADOW_REASONS = (Reason.SHADOW, Reason.NOT_IN_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorParts:
    """What the monitors of all students need from outside."""

    store: Store
    clock: Callable[[], float]
    sampler: Sampler
    settings: Callable[[str], TaskSettings]  # by task
    ready: Callable[[], Mapping[str, ReadyStudent]]  # the students that answer now, by task
    # (teacher's model name, student's run, task, callback for each paid call) → a client; raises
    # TeacherError when there is no such teacher
    teacher: Callable[[str, str, str, Callable[[TeacherCall], None]], TeacherClient]
    follow: Callable[[], Awaitable[None]]  # starts students and publishes routes as stored


class StudentMonitor:
    """Monitors one promoted student."""

    def __init__(
        self,
        promotion: Promotion,
        evidence: EvidenceTracker,
        parts: MonitorParts,
        groups: LiveGroups,
        generic: frozenset[str] = frozenset(),
    ) -> None:
        """`groups`: knows the comparisons in the evidence. `generic`: see EvidenceTracker."""
        self.promotion = promotion
        self.evidence = evidence
        self._groups, self._generic = groups, generic
        self.closed = False  # the student was demoted or replaced
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
        """The task's settings now."""
        return self._parts.settings(self._task)

    def add_request(self, request: RequestOutcome) -> None:
        """Adds a collected request of the task to the evidence, or to the queues of work."""
        if request.start_time <= self.evidence.promoted_at:
            return
        if request.student_id == self.evidence.student_id:
            self.evidence.add_request(request)
            if request.served_by == "student" and request.has_texts:
                self.sample_for_audit(request.trace_id, request.end_time)
        elif (
            request.student_id is None
            and request.whole
            and request.has_texts
            and request.served_by == "teacher"
            and request.reason in SHADOW_REASONS
            and request.start_time > self.evidence.promoted_at + ROUTES_READ_WITHIN_S
            and self._parts.sampler.selects(
                request.trace_id, "shadow", self.settings.rollout.shadow_share
            )
        ):
            self._shadow.enqueue(request.trace_id, request.end_time)

    def sample_for_audit(self, trace_id: str, served_at: float) -> None:
        """Enqueues the audit of a served request, if the rate of that time selects it."""
        rate = self.evidence.audit_rate_at(served_at)
        if self._parts.sampler.selects(trace_id, "audit", rate):
            self._audits.enqueue(trace_id, served_at)

    async def tick(self) -> None:
        """Decides on what is known now, and starts pending work. Called periodically."""
        async with self._lock:
            await self._decide()
        if not self.closed:
            self._shadow.start()
            self._audits.start()
        if self._calls:
            await self._write_calls()

    async def follow_step(self, promotion: Promotion) -> None:
        """The student was moved to another step by somebody else."""
        async with self._lock:
            self.promotion, self._reason = promotion, promotion.reason
            self.evidence.begin_step(promotion)

    async def reload_evidence(self) -> None:
        """Reads the evidence anew: something new belongs between older comparisons."""
        settings, templates = self.settings, self.route.templates
        student_id, promoted_at = self.evidence.student_id, self.evidence.promoted_at

        def read(db: Database) -> EvidenceTracker:
            group_new(db, self._groups, student_id, promoted_at, templates)
            return load_evidence(
                db,
                self.promotion,
                promoted_at=promoted_at,
                settings=settings,
                generic=self._generic,
            )

        async with self._lock:
            self.evidence = await self._parts.store.run(read)

    def close(self) -> None:
        """Begins no further work. What is in progress is completed."""
        self.closed = self._shadow.closed = self._audits.closed = True

    @property
    def busy(self) -> bool:
        """Whether a student or a teacher is being asked."""
        return self._shadow.busy or self._audits.busy

    async def stop(self) -> None:
        """Cancels what is in progress. Pending audits are found in the store again."""
        self.close()
        await asyncio.gather(self._shadow.stop(), self._audits.stop())
        for client in self._clients.values():
            await client.close()
        await self._write_calls()

    def state(self) -> LiveStudent:
        """The student's state, for the status. May be called from any thread."""
        evidence, route, rollout = self.evidence, self.route, self.settings.rollout
        step = evidence.step_agreement()
        larger = larger_shares(route, rollout)
        waits = {
            "shadow": self._shadow.wait_reason if route.share < 1 else "",
            "audits": self._audits.wait_reason,
        }
        return LiveStudent(
            student_id=evidence.student_id,
            step=route.step,
            share=route.share,
            shares=list(rollout.shares),
            next_share=larger[0] if larger and route.step != "live" else None,
            promoted_at=evidence.promoted_at,
            step_at=evidence.step_at,
            rows=step.rows,
            groups=step.groups,
            groups_agreed=step.agreed,
            groups_needed=rollout.min_comparisons,
            reason=self._reason,
            waits_for="; ".join(f"{name}: {why}" for name, why in waits.items() if why),
            comparisons=dict(evidence.counts.items()),
            shed=self._shadow.shed,
            audits=AuditState(
                rate=evidence.audit_rate_at(self._parts.clock()),
                owed=self._audits.pending,
                dropped=self._audits.dropped.total(),
                dropped_for=dict(self._audits.dropped),
            ),
            suspicion={
                "disagreement": evidence.disagreement.state(),
                "faults": evidence.faults.state(),
                "unsure": evidence.unsure.state(),
                **{f"recall of {name}": one.state() for name, one in evidence.recall.items()},
            },
        )

    # ---- comparing ------------------------------------------------------------------------------

    def _base_url(self) -> str | None:
        student = self._parts.ready().get(self._task)
        if student is None or student.student_id != self.evidence.student_id:
            return None
        return student.base_url

    async def _trace(self, trace_id: str) -> LoggedExchange | None:
        return await self._parts.store.exchange_by_id(trace_id)

    def _teacher(self, model: str) -> TeacherClient:
        if model not in self._clients:
            self._clients[model] = self._parts.teacher(
                model, self.evidence.student_id, self._task, self._calls.append
            )
        return self._clients[model]

    async def _score(self, route: Route, pair: AnswerPair) -> float:
        teacher, student = pair.row.target, pair.student or ""
        ask = SCORERS[route.scorer].ask
        if ask is None:
            return score(route.scorer, teacher, student, tools=route.terms.output == "tools")
        judge = ask(self._teacher(pair.row.model), self.settings.evaluate, None, Counter())
        return await judge(teacher, student, pair.row.messages)

    async def _record(self, pair: AnswerPair) -> str:
        """Scores a pair of answers, writes the comparison, and decides on the new evidence.

        Returns why it cannot be compared; empty when it was.
        """
        route = self.route  # as it is now: another comparison may demote the student meanwhile
        if route.terms.output == "json" and is_incomplete_json(pair.row.target):
            return CUT_OFF  # whatever the teacher says, it is half an answer
        comparison = await compare(pair, route, self._score)
        async with self._lock:
            at = max(self._parts.clock(), self.evidence.last_at + TICK_S)
            member = member_of(pair.row.messages, route.templates, name=comparison.trace_id, at=at)
            group = self._groups.group_of(comparison.trace_id, member)
            comparison = replace(comparison, at=at, group_key=group)
            await self._write([comparison])
            self.evidence.add_comparison(
                ComparisonOutcome(
                    trace_id=comparison.trace_id,
                    kind=comparison.kind,
                    agrees=comparison.agrees,
                    servable=comparison.servable,
                    fault=comparison.fault,
                    at=at,
                    begun=pair.begun,
                    teacher_output=comparison.teacher_output,
                    student_output=comparison.student_output,
                    group=group,
                )
            )
            if comparison.servable and not comparison.agrees and not self.closed:
                await self._list_inputs()
            await self._decide()
        return ""

    async def _list_inputs(self) -> None:
        """Leaves frequent inputs that the student answers otherwise to the teacher."""
        before = self.route.teacher_inputs
        certificate = self.promotion.certificate
        self.promotion = await self._parts.store.run(
            with_inputs_that_differ,
            self.promotion,
            since=self.evidence.promoted_at,
            threshold=(certificate or self.settings.gate).threshold,
        )
        if added := len(self.route.teacher_inputs) - len(before):
            log.info("task %s: %d frequent inputs are left to the teacher", self._task, added)
            await self._parts.follow()

    async def _write(self, comparisons: Sequence[Comparison]) -> None:
        """Writes comparisons together with the calls that were paid so far."""
        calls = list(self._calls)
        await self._parts.store.write_paid_comparisons(comparisons, calls)
        del self._calls[: len(calls)]

    async def _write_calls(self) -> None:
        """Writes paid calls that led to no comparison."""
        async with self._lock:
            if self._calls:
                await self._write([])

    async def _decide(self) -> None:
        if self.closed:
            return
        decision = decide(
            self.promotion, self.evidence.evidence(), self.settings, self._parts.clock()
        )
        self._reason = decision.reason
        if decision.action == "stay":
            return
        now = max(self._parts.clock(), self.evidence.last_at, self.promotion.at + TICK_S)
        promotion = next_promotion(self.promotion, decision, now)
        if not await self._parts.store.append_promotion_after(
            promotion, self.promotion.promotion_id
        ):
            return  # somebody else has moved it: the next tick follows
        log.info("task %s: %s (%s)", self._task, promotion.state, promotion.reason)
        self.promotion = promotion
        if promotion.target == "teacher":
            self.close()
        else:
            self.evidence.begin_step(promotion)
        await self._parts.follow()


async def open_monitor(promotion: Promotion, parts: MonitorParts) -> StudentMonitor:
    """The monitor of a promoted student, with all that the store knows of it."""
    student_id = str(promotion.run_id)
    templates = promotion.route.templates if promotion.route is not None else []

    promoted_at = await parts.store.run(first_step_at, promotion)
    exchanges = await parts.store.run(
        teacher_answers_before, promotion.task, promoted_at, REFERENCE
    )

    def prepare() -> tuple[LiveGroups, frozenset[str]]:
        import_libraries()  # of the first audit
        spread()  # of the first bound
        return groups_like(exchanges, templates), generic_beginnings(exchanges)

    groups, generic = await asyncio.to_thread(prepare)

    def read(db: Database) -> tuple[EvidenceTracker, list[tuple[str, float]]]:
        settings = parts.settings(promotion.task)
        catch_up(db, groups, student_id, promoted_at, templates)
        evidence = load_evidence(
            db, promotion, promoted_at=promoted_at, settings=settings, generic=generic
        )
        since = max(promoted_at, parts.clock() - MAX_PENDING_S)
        return evidence, unaudited_traces(db, evidence.student_id, since)

    evidence, unaudited = await parts.store.run(read)
    monitor = StudentMonitor(promotion, evidence, parts, groups, generic)
    for trace_id, served_at in unaudited:
        monitor.sample_for_audit(trace_id, served_at)
    return monitor


def first_step_at(db: Database, promotion: Promotion) -> float:
    """When the unbroken sequence of steps began that led a student to this promotion."""
    first = promotion.at
    for earlier in promotions_of_task(db, promotion.task, MAX_PROMOTIONS):
        if (earlier.at, earlier.promotion_id) > (promotion.at, promotion.promotion_id):
            continue
        if earlier.target != "student" or earlier.run_id != promotion.run_id:
            break
        first = earlier.at
    return first


def next_promotion(promotion: Promotion, decision: RolloutDecision, now: float) -> Promotion:
    """The next line in a task's history: the student's next step, or its demotion."""
    if decision.action == "demote":
        return Promotion(
            promotion_id=new_id(),
            task=promotion.task,
            target="teacher",
            state="demoted",
            reason=decision.reason,
            actor="audit",
            at=now,
            run_id=promotion.run_id,
            certificate=promotion.certificate,
            suspect_since=decision.suspect_since,
        )
    assert promotion.route is not None, "a student is promoted with a route"
    return replace(
        promotion,
        promotion_id=new_id(),
        state=decision.step,
        reason=decision.reason,
        actor="rollout",
        at=now,
        route=replace(promotion.route, step=decision.step, share=decision.share, at=now),
    )
