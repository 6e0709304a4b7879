"""Keeps the students of all promoted tasks running: one server a task, restarted with back-off.

wanted ──▶ starting ──▶ ready ──▶ (no longer wanted) stopped
             ▲  │         │
             │  └─────────┴──▶ down: waits 1, 2, 4 … 60 s
             └──────────────────┘
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from store.backoff import Backoff
from store.errors import StudentError
from store.records import KindName
from store.settings.tasks import StudentSettings

FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
STABLE_AFTER_S = 60.0  # a student that was ready for so long restarts with the first back-off again
MAX_MISSED_CHECKS = 3  # health checks in a row, by a server whose process still runs

State = Literal["starting", "ready", "down"]
log = logging.getLogger("understudy.students")


@dataclass(frozen=True, slots=True)
class StudentSpec:
    """What to serve for a task."""

    student_id: str  # the run that made it
    base: str
    adapter: Path
    settings: StudentSettings = field(default_factory=StudentSettings)
    kind: KindName = "lora"


@dataclass(frozen=True, slots=True)
class ReadyStudent:
    """A student that answers requests now."""

    student_id: str
    base_url: str  # http://127.0.0.1:PORT, without /v1


class StudentProcess(Protocol):
    """A process that serves a student, of any kind."""

    @property
    def base_url(self) -> str:
        """Its address, once it is started."""

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""

    async def start(self) -> None:
        """Starts it and waits until it answers. Raises StudentError when it does not."""

    async def stop(self) -> None:
        """Stops it, whatever state it is in."""

    async def healthy(self) -> bool:
        """Whether it answers."""


@asynccontextmanager
async def started(server: StudentProcess) -> AsyncIterator[StudentProcess]:
    """Starts a student's server and stops it. Raises StudentError."""
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


class Students:
    """The servers of all promoted tasks. Called by one event loop alone."""

    def __init__(
        self,
        *,
        on_change: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
        server: Callable[[StudentSpec], StudentProcess],
    ) -> None:
        """`on_change` is awaited whenever the result of `ready()` has changed.

        `server` makes a student's server.
        """
        self._on_change, self._clock, self._server = on_change, clock, server
        self._wanted: dict[str, _SupervisedStudent] = {}
        self._unwanted: list[_SupervisedStudent] = []
        self._last_ready: Mapping[str, ReadyStudent] = {}

    def want(self, wanted: Mapping[str, StudentSpec]) -> None:
        """Sets which students are to be served, by task; `check` starts and stops them.

        Students that are no longer wanted leave `ready` at once. They are stopped by the check
        after the next one, when proxies have read the new routes.
        """
        for task, student in list(self._wanted.items()):
            if wanted.get(task) != student.spec:
                self._unwanted.append(self._wanted.pop(task))
        for task, spec in wanted.items():
            if task not in self._wanted:
                self._wanted[task] = _SupervisedStudent(
                    task, spec, self._server(spec), self._clock, self._report_changes
                )

    async def check(self) -> None:
        """Starts, checks, restarts and stops students. Does not wait until those started are up."""
        to_stop = [student for student in self._unwanted if student.may_stop]
        self._unwanted = [student for student in self._unwanted if not student.may_stop]
        for student in self._unwanted:
            student.may_stop = True
        await asyncio.gather(
            *(student.stop() for student in to_stop),
            *(student.check() for student in list(self._wanted.values())),
        )
        await self._report_changes()

    def ready(self) -> dict[str, ReadyStudent]:
        """The students that answer now, by task. Safe from any thread."""
        return {
            task: ReadyStudent(student.spec.student_id, student.server.base_url)
            for task, student in list(self._wanted.items())
            if student.state == "ready"
        }

    def states(self) -> dict[str, str]:
        """What each wanted student is doing, for the status page."""
        return {task: student.describe() for task, student in self._wanted.items()}

    async def stop(self) -> None:
        """Stops all students."""
        students = [*self._wanted.values(), *self._unwanted]
        self._wanted, self._unwanted = {}, []
        await asyncio.gather(*(student.stop() for student in students))

    async def _report_changes(self) -> None:
        ready = self.ready()
        if ready != self._last_ready:
            await self._on_change()
            self._last_ready = ready


class _SupervisedStudent:
    """One student's server: started, checked and restarted."""

    def __init__(
        self,
        task: str,
        spec: StudentSpec,
        server: StudentProcess,
        clock: Callable[[], float],
        on_change: Callable[[], Awaitable[None]],
    ) -> None:
        self.spec = spec
        self.state: State = "down"
        self.may_stop = False  # no longer wanted, and a check has passed since
        self.server = server
        self._task, self._clock, self._on_change = task, clock, on_change
        self._starting: asyncio.Task[None] | None = None
        self._backoff = Backoff(first_s=FIRST_BACKOFF_S, max_s=MAX_BACKOFF_S, clock=clock)
        self._missed_checks = 0
        self._reason = "not started yet"
        self._ready_since = 0.0

    def describe(self) -> str:
        """The state, with the reason when it is down."""
        return f"{self.state}: {self._reason}" if self.state == "down" else self.state

    async def check(self) -> None:
        if self.state == "ready":
            await self._check_health()
        elif self.state == "down" and not self._backoff.remaining_s:
            self.state = "starting"
            self._starting = asyncio.create_task(self._start(), name=f"start {self._task}")

    async def stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        self.state, self._reason = "down", "stopped"
        await self.server.stop()

    async def _start(self) -> None:
        started_at = self._clock()
        try:
            await self.server.start()
        except (StudentError, OSError) as error:
            self._mark_down(str(error))
        else:
            self.state, self._ready_since, self._missed_checks = "ready", self._clock(), 0
            took = self._ready_since - started_at
            log.info("task %s: student %s ready in %.1f s", self._task, self.spec.student_id, took)
        try:
            await self._on_change()
        except Exception as error:  # nobody awaits this task; the next check reports it again
            log.error("task %s: change not published (%s)", self._task, type(error).__name__)

    async def _check_health(self) -> None:
        if await self.server.healthy():
            self._missed_checks = 0
            return
        self._missed_checks += 1
        if self.server.pid is None:
            reason = "its process ended"
        elif self._missed_checks >= MAX_MISSED_CHECKS:
            reason = f"it missed {MAX_MISSED_CHECKS} health checks"
        else:
            return
        await self.server.stop()
        if self._clock() - self._ready_since >= STABLE_AFTER_S:
            self._backoff.succeeded()
        self._mark_down(reason)

    def _mark_down(self, reason: str) -> None:
        delay_s = self._backoff.failed()
        self.state, self._reason = "down", reason
        log.warning("task %s: student down (%s); restart in %.0f s", self._task, reason, delay_s)
