"""Keeps the promoted students alive: one server a task, restarted with back-off, stopped with us.

wanted ──▶ starting ──▶ ready ──▶ (no longer wanted) stopped
              ▲  │        │
              │  └────────┴──▶ down: waits 1, 2, 4 … 60 s
              └──────────────────┘
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from distill.students.server import StudentServer
from store.errors import StudentError
from store.settings.tasks import StudentSettings

__all__ = ["StudentServer", "StudentSpec", "Students"]

FIRST_BACK_OFF_S = 1.0
MAX_BACK_OFF_S = 60.0
PROVEN_S = 60.0  # a student that was ready for so long starts again from the first back-off
MISSES = 3  # health checks in a row that a student which still runs may miss

State = Literal["starting", "ready", "down"]
log = logging.getLogger("understudy.students")


@dataclass(frozen=True, slots=True)
class StudentSpec:
    """What to serve for a task."""

    student_id: str
    base: str
    adapter: Path
    settings: StudentSettings = field(default_factory=StudentSettings)


class Server(Protocol):
    """What is kept alive: StudentServer, or something like it."""

    @property
    def base_url(self) -> str:
        """Where it answers once it is started."""

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""

    async def start(self) -> None:
        """Starts it and waits until it answers. Raises StudentError when it does not."""

    async def stop(self) -> None:
        """Ends it, whatever state it is in."""

    async def healthy(self) -> bool:
        """Whether it answers."""


class Students:
    """The servers of all promoted tasks. Called by one event loop alone."""

    def __init__(
        self,
        *,
        log_dir: Path,
        on_change: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
        server: Callable[[StudentSpec], Server] | None = None,
    ) -> None:
        """`on_change` is awaited whenever `ready()` says something else than before.

        `server` makes a student's server; its log is then its own affair, not in `log_dir`.
        """
        self._on_change, self._clock = on_change, clock
        self._server = server or (
            lambda spec: StudentServer(
                spec.base, spec.adapter, spec.settings, log_dir, f"student-{spec.student_id}"
            )
        )
        self._keepers: dict[str, _Keeper] = {}
        self._leaving: list[_Keeper] = []
        self._said: Mapping[str, tuple[str, str]] = {}

    def want(self, wanted: Mapping[str, StudentSpec]) -> None:
        """Sets which students are to be served, by task; `check` makes it so.

        Students that are no longer wanted leave `ready` at once. They are stopped by the check
        after the next one, when proxies have read the new routes.
        """
        for task, keeper in list(self._keepers.items()):
            if wanted.get(task) != keeper.spec:
                self._leaving.append(self._keepers.pop(task))
        for task, spec in wanted.items():
            if task not in self._keepers:
                self._keepers[task] = _Keeper(
                    task, spec, self._server(spec), self._clock, self._tell
                )

    async def check(self) -> None:
        """Starts, checks, restarts and stops students. Returns before those that start are up."""
        gone = [k for k in self._leaving if k.noticed]
        self._leaving = [k for k in self._leaving if not k.noticed]
        for keeper in self._leaving:
            keeper.noticed = True
        await asyncio.gather(*(k.stop() for k in gone), *(k.check() for k in self._kept))
        await self._tell()

    def ready(self) -> dict[str, tuple[str, str]]:
        """The (student_id, base_url) of each task whose student answers. Safe from any thread."""
        return {
            task: (keeper.spec.student_id, keeper.server.base_url)
            for task, keeper in list(self._keepers.items())
            if keeper.state == "ready"
        }

    def states(self) -> dict[str, str]:
        """What each wanted student is doing, for the status page."""
        return {task: keeper.told() for task, keeper in self._keepers.items()}

    async def stop(self) -> None:
        """Stops all students."""
        keepers = [*self._kept, *self._leaving]
        self._keepers, self._leaving = {}, []
        await asyncio.gather(*(keeper.stop() for keeper in keepers))

    @property
    def _kept(self) -> list[_Keeper]:
        return list(self._keepers.values())

    async def _tell(self) -> None:
        ready = self.ready()
        if ready != self._said:
            await self._on_change()
            self._said = ready


class _Keeper:
    """Keeps one student alive."""

    def __init__(
        self,
        task: str,
        spec: StudentSpec,
        server: Server,
        clock: Callable[[], float],
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self.spec = spec
        self.state: State = "down"
        self.noticed = False  # once it has left: whether a check has passed since
        self.server = server
        self._task, self._clock, self._changed = task, clock, changed
        self._starting: asyncio.Task[None] | None = None
        self._failures = 0
        self._misses = 0
        self._reason = "not started yet"
        self._next_start = clock()
        self._ready_since = 0.0

    def told(self) -> str:
        """The state, and why it is down."""
        return f"{self.state}: {self._reason}" if self.state == "down" else self.state

    async def check(self) -> None:
        if self.state == "ready":
            await self._look_after()
        elif self.state == "down" and self._clock() >= self._next_start:
            self.state = "starting"
            self._starting = asyncio.create_task(self._start(), name=f"start {self._task}")

    async def stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        self.state, self._reason = "down", "stopped"
        await self.server.stop()

    async def _start(self) -> None:
        began = self._clock()
        try:
            await self.server.start()
        except (StudentError, OSError) as error:
            self._fall(str(error))
        else:
            self.state, self._ready_since, self._misses = "ready", self._clock(), 0
            took = self._ready_since - began
            log.info("task %s: student %s ready in %.1f s", self._task, self.spec.student_id, took)
        try:
            await self._changed()
        except Exception as error:  # nobody waits for this task; the next check tells it again
            log.error("task %s: not told that it changed (%s)", self._task, type(error).__name__)

    async def _look_after(self) -> None:
        if await self.server.healthy():
            self._misses = 0
            return
        self._misses += 1
        if self.server.pid is None:
            reason = "its process ended"
        elif self._misses >= MISSES:
            reason = f"it missed {MISSES} health checks"
        else:
            return
        await self.server.stop()
        if self._clock() - self._ready_since >= PROVEN_S:
            self._failures = 0
        self._fall(reason)

    def _fall(self, reason: str) -> None:
        pause = min(FIRST_BACK_OFF_S * 2 ** min(self._failures, 10), MAX_BACK_OFF_S)
        self.state, self._reason = "down", reason
        self._failures += 1
        self._next_start = self._clock() + pause
        log.warning("task %s: student down (%s); again in %.0f s", self._task, reason, pause)
