"""Reads the store and what runs now, and tells the status."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from distill.monitor.standing import LiveStanding
from distill.pipeline.due import used_until
from distill.pipeline.runner import Runner
from distill.publish import Publisher
from distill.run.progress import Board
from distill.status.status import Status, StoreHealth, TaskStatus, task_status
from store.database.actions import actions_of_task
from store.database.database import Database
from store.database.forgetting import marked_runs
from store.database.promotions import promotions_of_task
from store.database.runs import ended_runs, events_of_last_run
from store.database.statistics import task_statistics
from store.database.store import Store
from store.distribution import installed_version
from store.settings.tasks import TaskSettings
from store.settings.teachers import Price

RECENT_S = 3600.0
MAX_ACTIONS = 1000  # of a task, looked through for the last pause


class Reporter:
    """Puts the status together when it is asked for."""

    def __init__(
        self,
        store: Store,
        *,
        runner: Runner,
        board: Board,
        publisher: Publisher,
        prices: Mapping[str, Price],
        settings: Callable[[str], TaskSettings],
        live: Callable[[str], LiveStanding | None],
    ) -> None:
        """`settings` and `live` are asked by task, `live` from another thread than the loop's."""
        self._store = store
        self._runner = runner
        self._board = board
        self._publisher = publisher
        self._prices = prices
        self._settings, self._live = settings, live

    async def status(self, health: StoreHealth, students: Mapping[str, str]) -> Status:
        """Every task, and the control plane itself."""
        tasks = await self._store.task_counts()
        open_ones = len(await self._store.unfinished_forgettings())
        return Status(
            version=installed_version(),
            at=time.time(),
            store=health.model_copy(update={"forgetting": open_ones}),
            students=dict(students),
            tasks=[found for task in tasks if (found := await self.task(task)) is not None],
        )

    async def task(self, task: str) -> TaskStatus | None:
        """One task; None when no request was tagged so yet."""
        return await self._store.run(self._task, task)

    def _task(self, db: Database, task: str) -> TaskStatus | None:
        ended = ended_runs(db, task)
        statistics = task_statistics(
            db,
            task,
            used_until=used_until(ended),
            recent_since=time.time() - RECENT_S,
            prices=self._prices,
        )
        events = events_of_last_run(db, task)
        if not statistics.traces and not events:
            return None
        promotions = promotions_of_task(db, task)
        student = promotions[0].run_id if promotions else None
        return task_status(
            task=task,
            statistics=statistics,
            standing=self._board.standing(task),
            events=events,
            promotions=promotions,
            actions=actions_of_task(db, task, MAX_ACTIONS),
            live=self._live(task),
            route=self._publisher.routes.get(task),
            due=self._runner.verdicts.get(task),
            settings=self._settings(task),
            now=time.time(),
            mark=marked_runs(db).get(str(student)),
        )
