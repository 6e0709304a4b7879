"""Audits: what a student served, asked of the teacher afterwards, with the request as it was.

An audit is owed from the moment that its trace is drawn. While the teacher cannot be reached it
stays owed, for MAX_OWED_S; then, and when the teacher refuses the request or gives no whole
answer in words, it is dropped for good. What is owed is not written down: a restart draws the same
traces again (see distill.monitor.sampling) and leaves out those that were compared, so that none is
lost or counted twice. A request that was refused is then refused once more at the most, as it is
too old soon after.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

from distill.monitor.comparisons import Pair, row_of, served_text
from distill.monitor.workers import Workers
from distill.teacher.client import TeacherClient
from store.errors import StoreError, TeacherError, TeacherMalformed, TeacherRefused

MAX_OWED_S = 3600.0
AT_A_TIME = 4
FIRST_BACK_OFF_S = 1.0
MAX_BACK_OFF_S = 60.0


class Audits:
    """What one student's audits ask of the teacher."""

    def __init__(
        self,
        task: str,
        *,
        teacher: Callable[[str], TeacherClient],
        trace: Callable[[str], Awaitable[dict[str, Any] | None]],
        take: Callable[[Pair], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """`teacher`: a client by the name that the request gave it; may raise TeacherError.

        `take` gets each pair of answers; it may raise TeacherError, as it may take a judge.
        """
        self._teacher, self._trace = teacher, trace
        self._take, self._clock = take, clock
        self._owed: deque[tuple[str, float]] = deque()  # (trace_id, when it was served)
        self._paid: dict[str, str] = {}  # answers that could not be made a comparison yet
        self._under_way = 0
        self._workers = Workers(f"audits of task {task}", AT_A_TIME, self._work)
        self._back_off_s = 0.0
        self._not_before = 0.0
        self._cause = ""  # why the teacher could not be asked
        self.dropped: Counter[str] = Counter()
        self.closed = False  # nothing more is begun

    def owe(self, trace_id: str, served_at: float) -> None:
        """Takes on the audit of a trace that was drawn."""
        self._owed.append((trace_id, served_at))

    @property
    def owed(self) -> int:
        """How many are drawn and not compared, those under way included."""
        return len(self._owed) + self._under_way

    def start(self) -> None:
        """Goes to work when there is some. Called at every beat."""
        if self._may_ask():
            self._workers.start(len(self._owed))

    async def stop(self) -> None:
        """Cancels what is under way; it stays owed."""
        self.closed = True
        await self._workers.stop()

    @property
    def busy(self) -> bool:
        """Whether the teacher is being asked."""
        return self._workers.busy

    @property
    def waits_for(self) -> str:
        """Why the teacher is not asked now; empty when it may be."""
        return self._cause if self._not_before > self._clock() else ""

    def _may_ask(self) -> bool:
        return not self.closed and self._clock() >= self._not_before

    async def _work(self) -> None:
        while self._may_ask() and self._owed:
            trace_id, served_at = self._owed.popleft()
            if self._clock() - served_at > MAX_OWED_S:
                self._paid.pop(trace_id, None)
                self.dropped["too old"] += 1
                continue
            self._under_way += 1
            try:
                why_not = await self._one(trace_id)
            except TeacherError as error:
                self._owed.appendleft((trace_id, served_at))
                self._rest(str(error))
            except StoreError:
                self._owed.appendleft((trace_id, served_at))
                raise
            else:
                self._back_off_s = 0.0
                if why_not:
                    self.dropped[why_not] += 1
            finally:
                self._under_way -= 1

    async def _one(self, trace_id: str) -> str:
        """Audits one trace. Returns why there is nothing to compare; empty when it was compared.

        Raises TeacherError when the teacher cannot be asked now.
        """
        trace = await self._trace(trace_id)
        if trace is None:
            return "the trace is gone"
        student = served_text(trace)
        if not student:
            return "no answer in the trace"
        if trace_id not in self._paid:
            row = row_of(trace, target="")
            try:
                answer = await self._teacher(row.model).answer(row.messages, row.params, "audits")
            except TeacherRefused:
                return "refused by the teacher"
            except TeacherMalformed:
                return "no whole answer of the teacher"
            if not answer.whole:
                return "no whole answer of the teacher"
            self._paid[trace_id] = answer.text or ""
        await self._take(
            Pair(
                row=row_of(trace, target=self._paid[trace_id]),
                begun=trace["start_time"],
                kind="audit",
                student=student,
                fault=None,
                confidence=trace["confidence"],
            )
        )
        del self._paid[trace_id]
        return ""

    def _rest(self, cause: str) -> None:
        """Leaves the teacher alone for a while: 1, 2, 4 … 60 s."""
        if self._clock() < self._not_before:  # another audit at the same time found it out too
            return
        doubled = max(FIRST_BACK_OFF_S, 2 * self._back_off_s)
        self._back_off_s = min(doubled, MAX_BACK_OFF_S)
        self._not_before = self._clock() + self._back_off_s
        self._cause = cause
