"""What the control plane does again and again, each at its own interval."""

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
class Beat:
    """Work to be done every so many seconds, never twice at a time."""

    work: Work
    seconds: float
    first_after_s: float | None = None  # from the start to the first time; None: `seconds`


def schedule(beats: Iterable[Beat]) -> AsyncIOScheduler:
    """Starts them on the running loop. A beat that comes late is made up for once, whenever."""
    scheduler = AsyncIOScheduler(timezone="UTC")
    now = datetime.now(UTC)
    for beat in beats:
        after = beat.seconds if beat.first_after_s is None else beat.first_after_s
        scheduler.add_job(
            until_stopped(beat.work),
            "interval",
            seconds=beat.seconds,
            next_run_time=now + timedelta(seconds=after),
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
    scheduler.start()
    return scheduler


def until_stopped(work: Work) -> Work:
    """The same work, which a stop may cut off: the scheduler would call that a fault."""

    @wraps(work)
    async def beat() -> None:
        with suppress(asyncio.CancelledError):
            await work()

    return beat
