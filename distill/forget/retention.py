"""Retention: deletes traces and run folders that are older than the config keeps them.

Expired is not forgotten: what was derived from an old trace is deleted with it, but no run is
marked, and an import may bring the trace back. Traces are deleted in batches, so that collecting
never waits long.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable

from distill.forget.journal_lines import delete_old_ones, delete_older
from distill.forget.run_files import DAY_S, expired_runs, run_folders
from store.database.database import Database
from store.database.promotions import promotions_of_task
from store.database.replace import kept_files
from store.database.runs import ended_runs
from store.database.store import Store
from store.database.traces import task_counts
from store.errors import StoreError
from store.files.journal import DAMAGED_FOLDER
from store.files.kept import KEPT_FOLDER
from store.files.responses import sweep_responses
from store.settings.config import Config

BATCH_TRACES = 2_000
BATCH_PAUSE_S = 0.2  # in which the journal is collected
MAX_PROMOTIONS = 1_000

log = logging.getLogger("understudy.retention")


class Retention:
    """Deletes what is too old. Called by the scheduler."""

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        clock: Callable[[], float],
        sweep: Callable[[], Awaitable[None]],
    ) -> None:
        """`sweep` deletes from the runs' folders what the store does not have."""
        self._store, self._settings = store, config.retention
        self._runs_dir, self._responses_dir = config.runs_dir, config.responses_dir
        self._damaged_dir = config.journal_dir / DAMAGED_FOLDER
        self._kept_dir = config.journal_dir / KEPT_FOLDER
        self._database_file = config.database_file
        self._clock, self._sweep = clock, sweep

    async def check(self) -> None:
        """Deletes what is too old now."""
        try:
            await self._expire_traces()
            await self._expire_runs()
        except (StoreError, OSError) as error:
            log.error("not everything that is too old was deleted: %s", error)

    async def _expire_traces(self) -> None:
        days = self._settings.traces_days
        if days is None:
            return
        before, total = self._clock() - days * DAY_S, 0
        while deleted := await self._store.expire_traces(before, BATCH_TRACES):
            total += deleted
            await asyncio.sleep(BATCH_PAUSE_S)
        if total:
            await self._store.checkpoint()
            log.info("%d traces were older than %g days", total, days)
        await asyncio.to_thread(sweep_responses, self._responses_dir, keep_s=days * DAY_S)
        for folder in (self._damaged_dir, self._kept_dir):
            await asyncio.to_thread(delete_older, folder, before)
        await asyncio.to_thread(delete_old_ones, kept_files(self._database_file), before)
        await self._sweep()

    async def _expire_runs(self) -> None:
        days = self._settings.runs_days
        if days is None:
            return
        folders = run_folders(self._runs_dir)
        before = self._clock() - days * DAY_S
        for run_id in await self._store.run(_old_runs, list(folders), before):
            await asyncio.to_thread(shutil.rmtree, folders[run_id], ignore_errors=True)
            log.info("the folder of run %s was older than %g days", run_id, days)


def _old_runs(db: Database, folders: list[str], before: float) -> list[str]:
    tasks = task_counts(db)
    return expired_runs(
        {task: ended_runs(db, task) for task in tasks},
        {task: promotions_of_task(db, task, MAX_PROMOTIONS) for task in tasks},
        folders,
        before,
    )
