"""Starts the next run, one at a time, and records failures.

A run that was killed with its process is unfinished in the store, and is resumed first.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

from distill.pipeline.due import Due, due, supply_of, used_until
from distill.pipeline.elapsed import Elapsed
from distill.pipeline.pipeline import distil
from distill.pipeline.rows import MANIFEST, MAX_PROMOTIONS, suspect_since
from distill.run.history import RunLog
from distill.run.progress import Board
from distill.run.run import Parts, Run
from distill.teacher.client import import_libraries
from store.database.actions import paused_tasks, retrain_requested
from store.database.comparisons import audits_since
from store.database.database import Database
from store.database.forgetting import marked_runs
from store.database.promotions import promotions_of_task
from store.database.runs import ended_runs, events_of_run, latest_run_id, stage_detail
from store.database.traces import new_teacher_traces, uncovered_teacher_traces
from store.errors import UnderstudyError
from store.files.line_log import LineLog
from store.ids import later_id
from store.records import (
    Promotion,
    RunEvent,
    RunState,
)
from store.settings.config import Config
from store.settings.tasks import TaskSettings

MAX_STARTS = 4  # a run is given up when its process has died this often

log = logging.getLogger("understudy.runs")


class Runner:
    """Starts due runs, one at a time, and records how each ended."""

    def __init__(
        self,
        config: Config,
        parts: Parts,
        board: Board,
        *,
        on_end: Callable[[], Awaitable[None]],
        settled: Callable[[], Awaitable[None]] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`settled` returns when all threads that are running now have ended; see `give_up`.

        `monotonic`: the clock of the cooldowns, in seconds.
        """
        self._config = config
        self._parts = parts
        self._board = board
        self._on_end = on_end
        self._settled = settled
        self._current: asyncio.Task[None] | None = None
        self._run: Run | None = None  # the running or the last one
        self._holds = 0
        self._elapsed = Elapsed(parts.clock, monotonic)
        self.decisions: dict[str, Due] = {}  # by task: whether a run starts, and why

    @property
    def busy(self) -> bool:
        """Whether a run is in progress."""
        return self._current is not None and not self._current.done()

    async def check(self) -> None:
        """Called by the scheduler: decides on all tasks, and starts a run when none is running."""
        busy = self.busy  # a run that ends meanwhile is not yet in the data of the decisions
        next_due = await self.decide()
        if busy or self.busy:
            return
        run = await self._unfinished() or next_due
        if run is not None and not self._holds:
            self._run = run
            self._current = asyncio.create_task(self._one(run), name=f"run {run.run_id}")

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """A context in which no run starts. A running one continues."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    async def give_up(self, lost: Callable[[Path], Awaitable[bool]], reason: str) -> None:
        """Ends the current run as failed if `lost` is true for its folder.

        A run that is choosing its rows is waited for until it has written them. Returns when all
        work of the run has ended.
        """
        run = self._run
        while self.busy and run is not None and not (run.folder / MANIFEST).exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # polls a file
        if not self.busy or run is None or not await lost(run.folder):
            return
        await self.stop()
        if self._settled is not None:
            await self._settled()
        await self._fail(run, reason)
        await self._on_end()

    async def stop(self) -> None:
        """Stops the current run; it is resumed when the control plane starts again."""
        if self._current is not None:
            self._current.cancel()
            await asyncio.gather(self._current, return_exceptions=True)

    async def _unfinished(self) -> Run | None:
        """The oldest run that was killed before its end, of a task that is not paused."""
        paused = await self._parts.store.paused_tasks()
        for event in await self._parts.store.unfinished_runs():
            settings = self._config.task(event.task)
            if settings.paused or event.task in paused:
                continue
            return Run(event.run_id, event.task, settings, event.at, self._folder(event.run_id))
        return None

    async def decide(self) -> Run | None:
        """Decides for every task whether it is due; a run for the due one with most new traces."""
        store, now = self._parts.store, self._parts.clock()
        best: tuple[tuple[bool, int], str, TaskSettings] | None = None
        for task in await store.task_counts():
            settings = self._config.task(task)
            decision, weight = await store.run(self._decision, task, settings)
            self.decisions[task] = decision
            if decision.due and (best is None or weight > best[0]):
                best = (weight, task, settings)
        if best is None:
            return None
        run_id = later_id(await store.run(latest_run_id, best[1]))
        return Run(run_id, best[1], best[2], now, self._folder(run_id))

    def _decision(
        self, db: Database, task: str, settings: TaskSettings
    ) -> tuple[Due, tuple[bool, int]]:
        """Whether a task is due, and its priority: requested by hand, number of new traces."""
        ended = ended_runs(db, task)
        promotions = promotions_of_task(db, task, MAX_PROMOTIONS)
        demotion = next((p for p in promotions[:1] if p.target == "teacher"), None)
        retrain = retrain_requested(db, task)
        new = new_traces(db, task, promotions, used_until(ended))
        marked = self._marked(db, promotions, ended)
        usable = new_teacher_traces(db, task, 0.0) if retrain or marked else 0
        decision = due(
            settings=settings,
            new_traces=new,
            ended=ended,
            ended_ago_s=self._elapsed.since(_name(ended[-1]), ended[-1].at) if ended else inf,
            paused=task in paused_tasks(db),
            demoted_ago_s=(
                self._elapsed.since(demotion.promotion_id, demotion.at) if demotion else inf
            ),
            supply=supply_of(ended, settings, lambda run_id: _traces_of(db, run_id)),
            retrain=retrain,
            usable_traces=usable,
            marked=marked,
            retrain_forgotten=self._config.retention.retrain_forgotten,
        )
        return decision, (retrain, new)

    def _marked(
        self, db: Database, promotions: Sequence[Promotion], ended: Sequence[RunEvent]
    ) -> bool:
        """Whether the promoted student was trained on forgotten traces, and no judged run has begun
        since they were forgotten.
        """
        if not promotions or promotions[0].target != "student":
            return False
        mark = marked_runs(db).get(str(promotions[0].run_id))
        judged = [event for event in ended if event.state is not RunState.FAILED]
        if mark is None or not judged:
            return mark is not None
        first = events_of_run(db, judged[-1].run_id)[0]
        return first.at - first.seconds <= mark.at

    async def _one(self, run: Run) -> None:
        progress = self._board.start(run.task, run.run_id, run.started_at)
        try:
            self._count_start(run.folder)
            await asyncio.to_thread(import_libraries)
            event = await distil(run, self._parts, progress)
            log.info("run %s of task %s: %s (%s)", run.run_id, run.task, event.state, event.reason)
        except asyncio.CancelledError:
            raise
        except UnderstudyError as error:
            await self._fail(run, str(error))
        except BaseExceptionGroup as group:
            await self._fail(run, "; ".join(_message(e) for e in group.exceptions))
        except Exception as error:  # a bug ends one run, nothing else
            where = "".join(traceback.format_tb(error.__traceback__))  # its message may quote a row
            log.error("run %s of task %s broke:\n%s", run.run_id, run.task, where)
            await self._fail(run, _message(error))
        finally:
            self._board.end(run.task)
        await self._on_end()

    async def _fail(self, run: Run, reason: str) -> None:
        log.error("run %s of task %s failed: %s", run.run_id, run.task, reason)
        history = await RunLog.open(self._parts.store, run.run_id, run.task, self._parts.clock)
        await history.end(RunState.FAILED, reason)

    def _folder(self, run_id: str) -> Path:
        return self._config.runs_dir / run_id

    def _count_start(self, folder: Path) -> None:
        starts = LineLog(folder / "starts.jsonl")
        earlier = starts.load()
        starts.append({"at": self._parts.clock()})
        if len(earlier) >= MAX_STARTS:
            raise UnderstudyError(
                f"the process died {MAX_STARTS} times during this run; it is not tried again"
            )


def new_traces(db: Database, task: str, promotions: Sequence[Promotion], since: float) -> int:
    """How many traces a run of a task could learn from that no judged run has used.

    `promotions`: of the task, newest first. `since`: the time up to which traces are used up. While
    a student is promoted, requests that it is certified for do not count: neither those that shadow
    and canary still leave to the teacher, nor its audits. Otherwise the next run would overtake the
    rollout. After a demotion on risk, audits count like other answers of the teacher, and only the
    answers since the student went wrong.
    """
    if not promotions:
        return new_teacher_traces(db, task, since)
    if promotions[0].target == "student":
        return uncovered_teacher_traces(db, task, since)
    suspect = suspect_since(promotions) or 0.0
    new = new_teacher_traces(db, task, since, asked_since=suspect)
    return new + audits_since(db, task, max(since, suspect))


def _name(event: RunEvent) -> str:
    return f"{event.run_id}/{event.seq}"


def _traces_of(db: Database, run_id: str) -> int:
    """How many traces a run has looked at."""
    return int(stage_detail(db, run_id, RunState.COLLECTED.value).get("traces", 0))


def _message(error: BaseException) -> str:
    """The loggable part of an error: our own messages; of other errors the type alone."""
    return str(error) if isinstance(error, UnderstudyError) else f"{type(error).__name__} inside us"
