"""Puts the status together: from the store, and from what runs now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from distill.monitor.state import LiveStudent
from distill.pipeline.due import Due, used_until
from distill.run.progress import Board
from distill.status.status import ProxyRoutes, Status, StoreHealth, TaskStatus, task_status
from store.database.actions import actions_of_task
from store.database.database import Database
from store.database.forgetting import marked_runs
from store.database.promotions import promotions_of_task
from store.database.runs import ended_runs, events_of_last_run
from store.database.statistics import task_statistics
from store.database.store import Store
from store.distribution import installed_version
from store.records import Route
from store.settings.tasks import TaskSettings
from store.settings.teachers import Price

RECENT_S = 3600.0
MAX_ACTIONS = 1000  # of a task, searched for the last pause


class Reporter:
    """Makes the status at each request for it."""

    def __init__(
        self,
        store: Store,
        *,
        due: Callable[[str], Due | None],
        board: Board,
        route: Callable[[str], Route | None],
        prices: Mapping[str, Price],
        settings: Callable[[str], TaskSettings],
        live: Callable[[str], LiveStudent | None],
        proxies: Callable[[], ProxyRoutes | None] = lambda: None,
    ) -> None:
        """`due`, `route`, `settings` and `live` are called with a task, from any thread: its last
        decision on a run, its route as the proxies have it, its settings, and the state of its
        promoted student. `proxies`: which routes they have.
        """
        self._store = store
        self._board = board
        self._due, self._route = due, route
        self._prices = prices
        self._settings, self._live = settings, live
        self._proxies = proxies

    async def status(self, health: StoreHealth, students: Mapping[str, str]) -> Status:
        """Every task, and the control plane itself."""
        tasks = await self._store.task_counts()
        unfinished = len(await self._store.unfinished_forgettings())
        statuses = [await self.task(task) for task in tasks]
        return Status(
            version=installed_version(),
            at=time.time(),
            store=replace(health, forgetting=unfinished),
            students=dict(students),
            proxies=self._proxies(),
            tasks=[status for status in statuses if status is not None],
        )

    async def task(self, task: str) -> TaskStatus | None:
        """One task; None when no request had this tag yet."""
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
            route=self._route(task),
            due=self._due(task),
            settings=self._settings(task),
            now=time.time(),
            mark=marked_runs(db).get(str(student)),
        )
