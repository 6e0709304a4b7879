"""Audits: for a sample of what a student served, the teacher is asked the same request afterwards.

An audit is pending from the moment that its trace is sampled. While the teacher cannot be reached
it stays pending, for MAX_PENDING_S. After that, or when the teacher refuses the request or gives no
complete answer, it is dropped for good.

The queue is not stored. After a restart the same traces are sampled again (see
distill.monitor.sampling) and those that have a comparison already are skipped, so no audit is lost
or counted twice. A request that the teacher refused may be asked once more after a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from distill.dataset.exchange import lesson_of
from distill.monitor.comparisons import AnswerPair, row_of
from distill.monitor.workers import BackgroundWorkers, QueuedTrace
from distill.teacher.client import TeacherClient
from store.errors import StoreError, TeacherError, TeacherMalformed, TeacherRefused
from store.records import LoggedExchange

MAX_PENDING_S = 3600.0
CONCURRENCY = 4
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
CUT_OFF = "no whole answer of the teacher"  # why an audit was dropped


class Audits(BackgroundWorkers):
    """The pending audits of one student."""

    def __init__(
        self,
        task: str,
        *,
        teacher: Callable[[str], TeacherClient],
        trace: Callable[[str], Awaitable[LoggedExchange | None]],
        record: Callable[[AnswerPair], Awaitable[str]],
        clock: Callable[[], float],
    ) -> None:
        """`teacher`: a client by the model name of the request; may raise TeacherError.

        `record` gets each pair of answers, and returns why it cannot be compared, if so; it may
        raise TeacherError, since it may ask a judge.
        """
        super().__init__(
            f"audits of task {task}",
            concurrency=CONCURRENCY,
            first_backoff_s=FIRST_BACKOFF_S,
            max_backoff_s=MAX_BACKOFF_S,
            clock=clock,
        )
        self._teacher, self._trace, self._record = teacher, trace, record
        self._unrecorded: dict[str, str] = {}  # paid answers that are no comparison yet, by trace
        self._last_error = ""  # why the teacher could not be asked
        self.dropped: Counter[str] = Counter()  # by reason

    @property
    def wait_reason(self) -> str:
        """Why the teacher is not asked now."""
        if not self._backoff.remaining_s:
            return ""
        return self._last_error or "the teacher could not be asked"

    def _next(self) -> QueuedTrace | None:
        while self._queue:
            item = self._queue.popleft()
            if self._clock() - item.answered_at <= MAX_PENDING_S:
                return item
            self._unrecorded.pop(item.trace_id, None)
            self.dropped["too old"] += 1
        return None

    async def _process(self, item: QueuedTrace) -> None:
        try:
            drop_reason = await self._audit(item.trace_id)
        except TeacherError as error:
            self._queue.appendleft(item)
            if not self._backoff.remaining_s:  # else a concurrent audit has met the same fault
                self._backoff.failed()
                self._last_error = str(error)
        except StoreError:
            self._queue.appendleft(item)
            raise
        else:
            self._backoff.succeeded()
            if drop_reason:
                self.dropped[drop_reason] += 1

    async def _audit(self, trace_id: str) -> str:
        """Audits one trace. Returns why it cannot be compared; empty when it was.

        Raises TeacherError when the teacher cannot be asked now.
        """
        trace = await self._trace(trace_id)
        if trace is None:
            return "the trace is gone"
        lesson = lesson_of(trace)
        student = lesson.target
        if not student:
            return "no answer in the trace"
        if trace_id not in self._unrecorded:
            row = row_of(trace, lesson, target="")
            try:
                answer = await self._teacher(row.model).answer(row.messages, row.params, "audits")
            except TeacherRefused:
                return "refused by the teacher"
            except TeacherMalformed:
                return CUT_OFF
            if not answer.whole:
                return CUT_OFF
            self._unrecorded[trace_id] = answer.text or ""
        reason = await self._record(
            AnswerPair(
                row=row_of(trace, lesson, target=self._unrecorded[trace_id]),
                begun=trace.asked_at,
                kind="audit",
                student=student,
                fault=None,
                confidence=trace.confidence,
            )
        )
        del self._unrecorded[trace_id]
        return reason
