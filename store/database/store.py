"""The database for code on an event loop: each query awaited, and run in a thread.

    store = Store(db)
    promotions = await store.latest_promotions()

A method has the name of the function that it runs; the functions themselves are for code that is
in a thread already, and for several queries in one transaction: `await store.run(work, …)`.

A caller that is cancelled no longer waits, but the thread goes on: a transaction that has begun is
committed or rolled back as a whole, perhaps after the caller's end. `distill.threads` waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from store.database import actions, comparisons, forgetting, promotions, runs, traces
from store.database.database import Database

P = ParamSpec("P")
T = TypeVar("T")


def _in_thread(
    function: Callable[Concatenate[Database, P], T],
) -> Callable[Concatenate[Store, P], Coroutine[Any, Any, T]]:
    """A method of Store that runs a function of the database in a thread."""

    @wraps(function)
    async def method(self: Store, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(function, *args, **kwargs)

    return method


class Store:
    """The queries on one database, as coroutines. Raises what they raise: StoreError."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def run(
        self, work: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs work on the database in a thread. Calls of one caller keep their order."""
        return await asyncio.to_thread(work, self.db, *args, **kwargs)

    checkpoint = _in_thread(Database.checkpoint)
    rewrite = _in_thread(Database.rewrite)

    task_counts = _in_thread(traces.task_counts)
    exchange_by_id = _in_thread(traces.exchange_by_id)

    append_run_event = _in_thread(runs.append_run_event)
    events_of_run = _in_thread(runs.events_of_run)
    unfinished_runs = _in_thread(runs.unfinished_runs)
    certificates_of_task = _in_thread(runs.certificates_of_task)
    stage_detail = _in_thread(runs.stage_detail)
    replace_examples = _in_thread(runs.replace_examples)
    replace_teacher_calls = _in_thread(runs.replace_teacher_calls)
    replace_evaluations = _in_thread(runs.replace_evaluations)
    save_policy = _in_thread(runs.save_policy)

    append_promotion = _in_thread(promotions.append_promotion)
    append_promotion_after = _in_thread(promotions.append_promotion_after)
    latest_promotions = _in_thread(promotions.latest_promotions)
    promotions_of_task = _in_thread(promotions.promotions_of_task)

    write_paid_comparisons = _in_thread(comparisons.write_paid_comparisons)

    paused_tasks = _in_thread(actions.paused_tasks)

    request_forgetting = _in_thread(forgetting.request_forgetting)
    preview_forgetting = _in_thread(forgetting.preview_forgetting)
    advance_forgetting = _in_thread(forgetting.advance_forgetting)
    unfinished_forgettings = _in_thread(forgetting.unfinished_forgettings)
    delete_orphans = _in_thread(forgetting.delete_orphans)
    expire_traces = _in_thread(forgetting.expire_traces)
