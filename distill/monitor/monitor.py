"""Live evidence: every promoted student is watched, on each beat of the control plane.

    collected requests ─┬─▶ shadow ──▶ ┐
                        ├─▶ audits ──▶ ├─▶ comparison ─▶ store ─▶ dossier ─▶ verdict ─▶ promotion
                        ├─▶ faults ────┼─────────────────────────────┘                     │
    feedback ───────────┴──────────────┘                                           routes ◀─┘

`Live.beat` is the orchestrator; distill.monitor.student is one student. The proxies have no part in
it: the evidence is in the store, and a restart goes on where it ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from distill.monitor.feedback import feedback_comparisons
from distill.monitor.standing import LiveStanding
from distill.monitor.student import Case, LiveParts, began_at, open_case
from store.database.actions import paused_tasks
from store.database.database import Database
from store.database.promotions import latest_promotions
from store.database.traces import RequestOutcome
from store.errors import UnderstudyError
from store.records import Promotion

log = logging.getLogger("understudy.live")


class Live:
    """The watch over all promoted students. Used by one event loop; `standing` by any thread."""

    def __init__(self, parts: LiveParts) -> None:
        self._parts = parts
        self._cases: dict[str, Case] = {}  # by task
        self._leaving: list[Case] = []  # closed, with something still under way
        self._missed = False
        self._stopped = False
        self._said: dict[str, str] = {}  # what went wrong with a task, so that it is said once

    def miss(self) -> None:
        """Says that requests may be in the store that no beat was told of: reads all anew."""
        self._missed = True

    def standing(self, task: str) -> LiveStanding | None:
        """Where a task's promoted student stands; None when it has none."""
        case = self._cases.get(task)
        return None if case is None or case.closed else case.standing()

    @property
    def busy(self) -> bool:
        """Whether a student or a teacher is being asked."""
        return any(case.busy for case in (*self._cases.values(), *self._leaving))

    async def beat(self, routed: Iterable[RequestOutcome] = ()) -> None:
        """Takes in what was collected since the last beat, judges, and goes on with the asking.

        Returns without waiting for any student or teacher. Raises StoreError when the store cannot
        be read; what was to be taken in is then read from it by a later beat.
        """
        try:
            promotions, paused, complained = await self._parts.store.run(_news)
            if self._missed:
                await self._stop_all()
            opened = await self._follow(promotions)
        except BaseException:
            self.miss()
            raise
        self._missed = False
        if self._stopped:
            await self._stop_all()
        by_task: defaultdict[str, list[RequestOutcome]] = defaultdict(list)
        for request in routed:
            # a case that is new has read a moment ago what its student was asked for
            if request.task not in opened or request.student_id is None:
                by_task[request.task].append(request)
        for task, case in list(self._cases.items()):
            await self._guard(
                case,
                by_task[task],
                read_again=task in complained,
                paused=task in paused or self._parts.settings(task).paused,
            )
        for gone in [case for case in self._leaving if not case.busy]:
            await gone.stop()
            self._leaving.remove(gone)

    async def stop(self) -> None:
        """Cancels everything that is under way; later beats begin nothing."""
        self._stopped = True
        await self._stop_all()

    async def _stop_all(self) -> None:
        cases = [*self._cases.values(), *self._leaving]
        self._cases, self._leaving = {}, []
        for stopped in await asyncio.gather(*(c.stop() for c in cases), return_exceptions=True):
            if isinstance(stopped, BaseException):
                log.error("not everything that was paid is written: %s", _told(stopped))

    async def _follow(self, promotions: Mapping[str, Promotion]) -> set[str]:
        """Has a case for each promoted student. Returns the tasks whose case is new."""
        opened = set()
        for task, promotion in promotions.items():
            case = self._cases.get(task)
            serves = promotion.target == "student" and promotion.route and promotion.run_id
            if case is not None:
                if _order(promotion) < _order(case.promotion):
                    continue  # read before the case itself brought about another
                if promotion.promotion_id == case.promotion.promotion_id and not case.closed:
                    continue
                if serves and await self._goes_on(case, promotion):
                    await case.change_step(promotion)
                    continue
                self._leave(task)
            if serves:
                self._cases[task] = await open_case(promotion, self._parts)
                opened.add(task)
        return opened

    async def _goes_on(self, case: Case, promotion: Promotion) -> bool:
        """Whether a promotion is of the case's student and no demotion lies between."""
        if case.closed or promotion.run_id != case.dossier.student_id:
            return False
        began = await self._parts.store.run(began_at, promotion)
        return began == case.dossier.promoted_at

    def _leave(self, task: str) -> None:
        """Closes a case. What it has under way still becomes comparisons."""
        case = self._cases.pop(task)
        case.close()
        self._leaving.append(case)

    async def _guard(
        self, case: Case, routed: Sequence[RequestOutcome], *, read_again: bool, paused: bool
    ) -> None:
        """One task's beat. What goes wrong in it is said, and holds up no other."""
        task = case.promotion.task
        try:
            for request in routed:
                case.see(request)
            if read_again:  # the store has these requests already
                await case.read_again()
            if not paused:
                await case.tick()
        except Exception as error:
            if self._said.get(task) != _told(error):
                log.error("task %s: its student is not watched: %s", task, _told(error))
            self._said[task] = _told(error)
        else:
            self._said.pop(task, None)


def _news(db: Database) -> tuple[dict[str, Promotion], AbstractSet[str], AbstractSet[str]]:
    """The last promotion of each task, the tasks paused by hand, those with new complaints."""
    promotions, paused = latest_promotions(db), paused_tasks(db)
    complained: set[str] = set()
    try:  # last: whoever hears of a complaint here has to act on it
        complained = {comparison.task for comparison in feedback_comparisons(db)}
    except Exception as error:  # what clients say is no reason to stop watching
        log.error("feedback is not taken in: %s", _told(error))
    return promotions, paused, complained


def _order(promotion: Promotion) -> tuple[float, str]:
    return promotion.at, promotion.promotion_id


def _told(error: BaseException) -> str:
    """What may be said of an error: our own messages whole, of others the type alone."""
    return str(error) if isinstance(error, UnderstudyError) else type(error).__name__
