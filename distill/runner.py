"""Which run is next, and what happens when one fails. One run at a time.

A run that was killed with its process is found unfinished in the store and goes on first.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from distill.due import Due, due, used_until
from distill.pipeline import distil
from distill.progress import Board
from distill.run import Parts, Run
from distill.runlog import RunLog
from store import records
from store.config import Config
from store.errors import UnderstudyError
from store.files import append_line, read_lines
from store.models import RunState, new_id
from store.task_settings import TaskSettings

MOST_STARTS = 4  # a run whose process died this often is not tried again

log = logging.getLogger("understudy.runs")


class Runner:
    """Starts due runs, one at a time, and records how each ended."""

    def __init__(
        self, config: Config, parts: Parts, board: Board, on_end: Callable[[], Awaitable[None]]
    ) -> None:
        self._config = config
        self._parts = parts
        self._board = board
        self._on_end = on_end
        self._current: asyncio.Task[None] | None = None
        self.verdicts: dict[str, Due] = {}  # why each task has a run, or none

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return self._current is not None and not self._current.done()

    async def check(self) -> None:
        """Called by the scheduler: judges all tasks, starts a run when none is under way."""
        next_due = await self._judge()
        if self.busy:
            return
        run = await self._unfinished() or next_due
        if run is not None:
            self._current = asyncio.create_task(self._one(run), name=f"run {run.run_id}")

    async def stop(self) -> None:
        """Stops the run under way; it goes on when the control plane starts again."""
        if self._current is not None:
            self._current.cancel()
            await asyncio.gather(self._current, return_exceptions=True)

    async def _unfinished(self) -> Run | None:
        """The oldest run that was killed before its end."""
        for event in await asyncio.to_thread(records.unfinished_runs, self._parts.db):
            settings = self._config.task(event.task)
            return Run(event.run_id, event.task, settings, event.at, self._folder(event.run_id))
        return None

    async def _judge(self) -> Run | None:
        """Says of every task why it has a run or none; a run for the due one with most traces."""
        db, now = self._parts.db, self._parts.clock()
        best: tuple[int, str, TaskSettings] | None = None
        for task in await asyncio.to_thread(records.tasks, db):
            settings = self._config.task(task)
            ended = await asyncio.to_thread(records.ended_runs, db, task)
            new = await asyncio.to_thread(records.new_teacher_traces, db, task, used_until(ended))
            verdict = due(settings=settings, new_traces=new, ended=ended, now=now)
            self.verdicts[task] = verdict
            if verdict.due and (best is None or new > best[0]):
                best = (new, task, settings)
        if best is None:
            return None
        run_id = new_id()
        return Run(run_id, best[1], best[2], now, self._folder(run_id))

    async def _one(self, run: Run) -> None:
        progress = self._board.start(run.task, run.run_id, run.started_at)
        try:
            self._count_start(run.folder)
            event = await distil(run, self._parts, progress)
            log.info("run %s of task %s: %s (%s)", run.run_id, run.task, event.state, event.reason)
        except asyncio.CancelledError:
            raise
        except UnderstudyError as error:
            await self._fail(run, str(error))
        except BaseExceptionGroup as group:
            await self._fail(run, "; ".join(_told(e) for e in group.exceptions))
        except Exception as error:  # a fault of ours ends one run, nothing else
            where = "".join(traceback.format_tb(error.__traceback__))  # its message may quote a row
            log.error("run %s of task %s broke:\n%s", run.run_id, run.task, where)
            await self._fail(run, _told(error))
        finally:
            self._board.end(run.task)
        await self._on_end()

    async def _fail(self, run: Run, reason: str) -> None:
        log.error("run %s of task %s failed: %s", run.run_id, run.task, reason)
        history = await RunLog.open(self._parts.db, run.run_id, run.task, self._parts.clock)
        await history.end(RunState.FAILED, reason)

    def _folder(self, run_id: str) -> Path:
        return self._config.runs_dir / run_id

    def _count_start(self, folder: Path) -> None:
        starts = folder / "starts.jsonl"
        append_line(starts, {"at": self._parts.clock()})
        if len(read_lines(starts)) > MOST_STARTS:
            raise UnderstudyError(
                f"the process died {MOST_STARTS} times during this run; it is not tried again"
            )


def _told(error: BaseException) -> str:
    """What may be said of an error: our own messages whole, of others the type alone."""
    return str(error) if isinstance(error, UnderstudyError) else f"{type(error).__name__} inside us"
