"""The periodic jobs of the control plane, each at its own interval."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps

from apscheduler.schedulers.asyncio import AsyncIOScheduler

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class PeriodicJob:
    """Work to be done every so many seconds, never twice at a time."""

    work: Work
    seconds: float
    first_after_s: float | None = None  # from the start to the first time; None: `seconds`


def schedule(jobs: Iterable[PeriodicJob]) -> AsyncIOScheduler:
    """Starts the jobs on the running loop. A job that is late runs once, however late it is."""
    scheduler = AsyncIOScheduler(timezone="UTC")
    now = datetime.now(UTC)
    for job in jobs:
        after = job.seconds if job.first_after_s is None else job.first_after_s
        scheduler.add_job(
            until_stopped(job.work),
            "interval",
            seconds=job.seconds,
            next_run_time=now + timedelta(seconds=after),
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
    scheduler.start()
    return scheduler


def until_stopped(work: Work) -> Work:
    """The same work, which a stop may cancel: the scheduler would log that as an error."""

    @wraps(work)
    async def run() -> None:
        with suppress(asyncio.CancelledError):
            await work()

    return run
