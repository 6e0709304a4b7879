"""The shadow: a student answers what the teacher has answered; no client sees its answer.

Clients have priority. A student is asked for one such request at a time, the newest first; requests
that have waited for MAX_WAIT_S are shed. After an answer that took more than half of the time limit
the shadow pauses, longer with each slow answer in a row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from distill.dataset.exchange import lesson_of
from distill.evaluate.evaluate import ask_row, student_session
from distill.monitor.comparisons import AnswerPair, row_of
from distill.monitor.workers import BackgroundWorkers, QueuedTrace
from store.errors import TeacherError
from store.records import LoggedExchange, Route

MAX_WAIT_S = 30.0
SLOW_SHARE = 0.5  # of the time limit: a longer answer counts as slow
FIRST_BACKOFF_S = 2.0
MAX_BACKOFF_S = 60.0


class Shadow(BackgroundWorkers):
    """The requests that one student is asked in the background."""

    def __init__(
        self,
        task: str,
        *,
        route: Callable[[], Route],
        base_url: Callable[[], str | None],
        trace: Callable[[str], Awaitable[LoggedExchange | None]],
        record: Callable[[AnswerPair], Awaitable[str]],
        clock: Callable[[], float],
    ) -> None:
        """`base_url`: of the student, while it is up. `trace`: a logged request by its id.

        `record` gets each pair of answers. When it raises TeacherError, because a judge cannot be
        asked, the pair is shed.
        """
        super().__init__(
            f"shadow of task {task}",
            concurrency=1,
            first_backoff_s=FIRST_BACKOFF_S,
            max_backoff_s=MAX_BACKOFF_S,
            clock=clock,
        )
        self._route, self._base_url = route, base_url
        self._trace, self._record = trace, record
        self.shed = 0

    def start(self) -> None:
        """Sheds what has waited for too long, and starts the worker."""
        self._shed_expired()
        super().start()

    @property
    def wait_reason(self) -> str:
        """Why the student is not asked now."""
        if self._base_url() is None:
            return "the student is not up"
        wait_s = self._backoff.remaining_s
        return f"the student is slow: the shadow pauses for {wait_s:.0f} s" if wait_s else ""

    def _next(self) -> QueuedTrace | None:
        self._shed_expired()
        return self._queue.pop() if self._queue else None

    def _shed_expired(self) -> None:
        horizon = self._clock() - MAX_WAIT_S
        while self._queue and self._queue[0].answered_at < horizon:
            self._queue.popleft()
            self.shed += 1

    async def _process(self, item: QueuedTrace) -> None:
        trace = await self._trace(item.trace_id)
        lesson = lesson_of(trace) if trace is not None else None
        if trace is None or lesson is None or lesson.reason:  # the certificate does not cover it
            return
        url = self._base_url()
        if url is None:
            self.shed += 1
            return
        route, row = self._route(), row_of(trace, lesson)
        async with student_session(url) as session:
            reply = await ask_row(session, route.terms, row)
        self._adapt_pace(reply.ms / 1000, route)
        if self.closed or self._base_url() != url:  # it was stopped: no fault of its own
            return
        pair = AnswerPair(
            row=row,
            begun=trace.asked_at,
            kind="shadow",
            student=reply.answer.text if reply.answer is not None else None,
            fault=reply.fault,
            confidence=reply.confidence,
        )
        try:
            await self._record(pair)
        except TeacherError:
            self.shed += 1

    def _adapt_pace(self, latency_s: float, route: Route) -> None:
        if latency_s <= SLOW_SHARE * route.terms.timeout_s:
            self._backoff.succeeded()
        else:
            self._backoff.failed(min_delay_s=latency_s)
