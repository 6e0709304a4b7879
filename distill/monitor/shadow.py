"""The shadow: a student answers what the teacher has answered, and nobody sees its answer.

Clients come first. A student is asked for one such request at a time, the newest first, and what
has waited for MAX_WAIT_S is shed. After an answer that took more than half of the time limit
the student is left alone for a while: the longer, the more often that happens in a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from distill.dataset.rows import Row, why_not
from distill.evaluate.evaluate import Asked, ask
from distill.monitor.comparisons import Pair, row_of
from distill.monitor.workers import Workers
from store.errors import TeacherError
from store.records import Route

MAX_WAIT_S = 30.0
SLOW_SHARE = 0.5  # of the time limit: an answer that took longer was slow
FIRST_BACK_OFF_S = 2.0
MAX_BACK_OFF_S = 60.0


class Shadow:
    """What one student is asked in the background."""

    def __init__(
        self,
        task: str,
        *,
        route: Callable[[], Route],
        base_url: Callable[[], str | None],
        trace: Callable[[str], Awaitable[dict[str, Any] | None]],
        take: Callable[[Pair], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """`base_url`: of the student, while it answers. `trace`: a logged request by its id.

        `take` gets each pair of answers. When it raises TeacherError, as it takes a judge that
        cannot be asked, the pair is shed.
        """
        self._route, self._base_url = route, base_url
        self._trace, self._take, self._clock = trace, take, clock
        self._waiting: deque[tuple[str, float]] = deque()  # (trace_id, since), oldest first
        self._workers = Workers(f"shadow of task {task}", 1, self._work)
        self._back_off_s = 0.0
        self._not_before = 0.0
        self.shed = 0
        self.closed = False  # nothing more is begun

    def offer(self, trace_id: str, since: float) -> None:
        """Puts a request in line. `since`: when the client had the teacher's answer."""
        self._waiting.append((trace_id, since))

    def start(self) -> None:
        """Goes to work when there is some. Called at every beat."""
        self._shed_old()
        if self._may_ask():
            self._workers.start(len(self._waiting))

    async def stop(self) -> None:
        """Cancels what is under way."""
        self.closed = True
        await self._workers.stop()

    @property
    def busy(self) -> bool:
        """Whether the student is being asked."""
        return self._workers.busy

    @property
    def waits_for(self) -> str:
        """Why the student is not asked now; empty when it may be."""
        if self._base_url() is None:
            return "the student is not up"
        wait = self._not_before - self._clock()
        return f"the student is slow: the shadow rests for {wait:.0f} s" if wait > 0 else ""

    def _may_ask(self) -> bool:
        return not self.closed and not self.waits_for

    def _shed_old(self) -> None:
        horizon = self._clock() - MAX_WAIT_S
        while self._waiting and self._waiting[0][1] < horizon:
            self._waiting.popleft()
            self.shed += 1

    async def _work(self) -> None:
        while self._may_ask():
            self._shed_old()
            if not self._waiting:
                return
            trace_id, _ = self._waiting.pop()
            await self._one(trace_id)

    async def _one(self, trace_id: str) -> None:
        trace = await self._trace(trace_id)
        if trace is None or why_not(trace):  # nothing that the certificate speaks of
            return
        url = self._base_url()
        if url is None:
            self.shed += 1
            return
        route, row = self._route(), row_of(trace)
        asked = await ask_as_proxy(url, route, row)
        self._look_at_pace(asked.latency_ms / 1000, route)
        if self.closed or self._base_url() != url:  # it was stopped, not at fault
            return
        pair = Pair(
            row=row,
            begun=trace["start_time"],
            kind="shadow",
            student=asked.answer.text if asked.answer is not None else None,
            fault=asked.fault,
            confidence=asked.confidence,
        )
        try:
            await self._take(pair)
        except TeacherError:
            self.shed += 1

    def _look_at_pace(self, seconds: float, route: Route) -> None:
        if seconds <= SLOW_SHARE * route.timeout_s:
            self._back_off_s = 0.0
            return
        doubled = max(FIRST_BACK_OFF_S, seconds, 2 * self._back_off_s)
        self._back_off_s = min(doubled, MAX_BACK_OFF_S)
        self._not_before = self._clock() + self._back_off_s


async def ask_as_proxy(base_url: str, route: Route, row: Row) -> Asked:
    """What the proxy would make of this request: the student's answer, and why not to serve it.

    `base_url`: without /v1. Never raises for the student's faults.
    """
    limit = aiohttp.ClientTimeout(route.timeout_s)
    async with aiohttp.ClientSession(base_url, timeout=limit) as session:
        return await ask(
            session,
            row,
            output=route.output,
            max_tokens=route.max_tokens,
            forms=route.forms,
            model=route.confidence,
            cutoff=route.cutoff,
        )
