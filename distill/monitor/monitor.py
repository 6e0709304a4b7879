"""Live evidence: monitors every promoted student, on each tick of the control plane.

    collected requests ─┬─▶ shadow ──▶ ┐
                        ├─▶ audits ──▶ ├─▶ comparison ─▶ store ─▶ evidence ─▶ decision ─▶ promotion
                        ├─▶ faults ────┼─────────────────────────────┘                        │
    feedback ───────────┴──────────────┘                                             routes ◀─┘

`LiveMonitor.tick` is the orchestrator; distill.monitor.student monitors one student. The proxies
take no part in it: the evidence is in the store, and a restart continues where it ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from distill.monitor.feedback import feedback_comparisons
from distill.monitor.state import LiveStudent
from distill.monitor.student import MonitorParts, StudentMonitor, first_step_at, open_monitor
from store.database.actions import paused_tasks
from store.database.database import Database
from store.database.promotions import latest_promotions
from store.database.traces import RequestOutcome
from store.errors import UnderstudyError
from store.records import Promotion

log = logging.getLogger("understudy.monitor")


@dataclass(frozen=True, slots=True)
class _Changes:
    """What the store says at the beginning of a tick."""

    promotions: Mapping[str, Promotion]  # the latest of each task
    paused: frozenset[str]  # tasks that are paused by hand
    complaints: frozenset[str]  # tasks with new complaints of clients


class LiveMonitor:
    """Monitors all promoted students. Used by one event loop; `state` by any thread."""

    def __init__(self, parts: MonitorParts) -> None:
        self._parts = parts
        self._monitors: dict[str, StudentMonitor] = {}  # by task
        self._closing: list[StudentMonitor] = []  # closed, with work in progress
        self._reload = False
        self._stopped = False
        self._last_error: dict[str, str] = {}  # by task, so that an error is logged once

    def reload(self) -> None:
        """Has the next tick read all evidence anew: requests may have been collected unseen."""
        self._reload = True

    def state(self, task: str) -> LiveStudent | None:
        """The state of a task's promoted student; None when it has none."""
        monitor = self._monitors.get(task)
        return None if monitor is None or monitor.closed else monitor.state()

    @property
    def busy(self) -> bool:
        """Whether a student or a teacher is being asked."""
        return any(monitor.busy for monitor in (*self._monitors.values(), *self._closing))

    async def tick(self, requests: Iterable[RequestOutcome] = ()) -> None:
        """Adds what was collected since the last tick, decides, and starts pending work.

        Does not wait for any student or teacher. Raises StoreError when the store cannot be read;
        a later tick then reads from it what was to be added.
        """
        try:
            changes = await self._parts.store.run(_changes)
            if self._reload:
                await self._stop_all()
            opened = await self._follow(changes.promotions)
        except BaseException:
            self.reload()
            raise
        self._reload = False
        if self._stopped:
            await self._stop_all()
        by_task: defaultdict[str, list[RequestOutcome]] = defaultdict(list)
        for request in requests:
            # a new monitor has just read from the store what its student was asked
            if request.task not in opened or request.student_id is None:
                by_task[request.task].append(request)
        for task, monitor in list(self._monitors.items()):
            await self._tick_student(
                monitor,
                by_task[task],
                reload_evidence=task in changes.complaints,
                paused=task in changes.paused or self._parts.settings(task).paused,
            )
        for closed in [monitor for monitor in self._closing if not monitor.busy]:
            await closed.stop()
            self._closing.remove(closed)

    async def stop(self) -> None:
        """Cancels all work in progress; later ticks begin none."""
        self._stopped = True
        await self._stop_all()

    async def _stop_all(self) -> None:
        monitors = [*self._monitors.values(), *self._closing]
        self._monitors, self._closing = {}, []
        results = await asyncio.gather(*(m.stop() for m in monitors), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                log.error("paid teacher calls are not stored: %s", _safe_message(result))

    async def _follow(self, promotions: Mapping[str, Promotion]) -> set[str]:
        """Makes one monitor for each promoted student. Returns the tasks whose monitor is new."""
        opened = set()
        for task, promotion in promotions.items():
            monitor = self._monitors.get(task)
            serves = promotion.target == "student" and promotion.route and promotion.run_id
            if monitor is not None:
                if _order(promotion) < _order(monitor.promotion):
                    continue  # read before the monitor itself appended a newer one
                if promotion.promotion_id == monitor.promotion.promotion_id and not monitor.closed:
                    monitor.promotion = promotion  # what its route lists may have been forgotten
                    continue
                if serves and await self._is_next_step(monitor, promotion):
                    await monitor.follow_step(promotion)
                    continue
                self._close(task)
            if serves:
                self._monitors[task] = await open_monitor(promotion, self._parts)
                opened.add(task)
        return opened

    async def _is_next_step(self, monitor: StudentMonitor, promotion: Promotion) -> bool:
        """Whether a promotion is of the same student, without a demotion between."""
        if monitor.closed or promotion.run_id != monitor.evidence.student_id:
            return False
        first = await self._parts.store.run(first_step_at, promotion)
        return first == monitor.evidence.promoted_at

    def _close(self, task: str) -> None:
        """Closes a monitor. Work in progress still leads to comparisons."""
        monitor = self._monitors.pop(task)
        monitor.close()
        self._closing.append(monitor)

    async def _tick_student(
        self,
        monitor: StudentMonitor,
        requests: Sequence[RequestOutcome],
        *,
        reload_evidence: bool,
        paused: bool,
    ) -> None:
        """One student's tick. An error in it is logged, and does not affect the others."""
        task = monitor.promotion.task
        try:
            for request in requests:
                monitor.add_request(request)
            if reload_evidence:  # the store has these requests already
                await monitor.reload_evidence()
            if not paused:
                await monitor.tick()
        except Exception as error:
            message = _safe_message(error)
            if self._last_error.get(task) != message:
                log.error("task %s: its student is not monitored: %s", task, message)
            self._last_error[task] = message
        else:
            self._last_error.pop(task, None)


def _changes(db: Database) -> _Changes:
    promotions, paused = latest_promotions(db), paused_tasks(db)
    complaints: set[str] = set()
    try:  # last: complaints that are read here have to be acted upon
        complaints = {comparison.task for comparison in feedback_comparisons(db)}
    except Exception as error:  # feedback that cannot be read must not stop the monitoring
        log.error("feedback is not added: %s", _safe_message(error))
    return _Changes(promotions, frozenset(paused), frozenset(complaints))


def _order(promotion: Promotion) -> tuple[float, str]:
    return promotion.at, promotion.promotion_id


def _safe_message(error: BaseException) -> str:
    """An error without content of requests: our own messages whole, else the type alone."""
    return str(error) if isinstance(error, UnderstudyError) else type(error).__name__
