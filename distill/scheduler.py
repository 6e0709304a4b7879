"""The periodic jobs of the control plane, each at its own interval.

By the event loop's clock, which no change of the machine's time touches: APScheduler goes by the
time of day, and after a clock that is set back by an hour it would run nothing for that hour.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from store.errors import UnderstudyError

Work = Callable[[], Awaitable[None]]

log = logging.getLogger("understudy.scheduler")


@dataclass(frozen=True, slots=True)
class PeriodicJob:
    """Work to be done every so many seconds, never twice at a time."""

    work: Work
    seconds: float
    first_after_s: float | None = None  # from the start to the first time; None: `seconds`


class Scheduler:
    """Periodic jobs that run until `shutdown`."""

    def __init__(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        self._tasks = list(tasks)

    def shutdown(self) -> None:
        """Cancels the jobs, also those that run now."""
        for task in self._tasks:
            task.cancel()


def schedule(jobs: Iterable[PeriodicJob]) -> Scheduler:
    """Starts the jobs on the running loop. A job that is late runs once, however late it is."""
    return Scheduler([asyncio.create_task(_repeat(job)) for job in jobs])


async def _repeat(job: PeriodicJob) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time() + (job.seconds if job.first_after_s is None else job.first_after_s)
    said = ""  # the last fault, so that it is logged once
    while True:
        await asyncio.sleep(due - loop.time())
        try:
            await job.work()
        except UnderstudyError as error:
            if str(error) != said:
                log.error("a periodic job failed, and goes on: %s", error)
            said = str(error)
        except Exception:
            log.exception("a periodic job failed, and goes on")
        else:
            said = ""
        due = max(due + job.seconds, loop.time())
