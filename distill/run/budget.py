"""What a run pays the teacher for: written down call by call, and in the store at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from distill.dataset.rows import Row
from distill.run.run import Parts, Run
from distill.teacher.client import TeacherClient
from store.errors import BudgetSpent, TeacherError
from store.files.line_log import LineLog
from store.records import TeacherCall

T = TypeVar("T")


def paid_calls(folder: Path) -> list[TeacherCall]:
    """The calls that a run has paid for so far, oldest first. `folder` is the run's."""
    return [TeacherCall(**line) for line in _call_log(folder).load()]


def teacher_of(rows: Sequence[Row]) -> str:
    """The teacher that answered most of the rows, as clients name it."""
    names = [row.model for row in rows]
    return max(sorted(set(names)), key=names.count)


@asynccontextmanager
async def paid_client(run: Run, parts: Parts, model: str) -> AsyncIterator[TeacherClient]:
    """A client for a teacher, whose budget knows what the run has spent before.

    Each call is in the run's folder as soon as it is paid. On leaving, in whatever way, all calls
    of the run are in the store. Only one such client of a run may be in use at a time.
    """
    log = _call_log(run.folder)
    calls = await asyncio.to_thread(paid_calls, run.folder)

    def record(call: TeacherCall) -> None:
        calls.append(call)
        log.append(asdict(call))

    client = parts.teacher(model, run, record)
    client.spent += sum(c.input_tokens + c.output_tokens for c in calls)
    try:
        yield client
    finally:
        await client.close()
        await parts.store.replace_teacher_calls(run.run_id, calls)


def _call_log(folder: Path) -> LineLog:
    return LineLog(folder / "calls.jsonl")


class Till:
    """Paid calls, so many at a time, of which none is lost when one of them fails.

    After a failure no further call begins. The error is raised to everybody who waits, but only
    when the calls under way have ended: who hears of it may end them, and they are paid for.
    """

    def __init__(self, at_a_time: int) -> None:
        self._slots = asyncio.Semaphore(at_a_time)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._failed: TeacherError | None = None

    async def pay(self, call: Callable[[], Awaitable[T]]) -> T:
        """Makes a call when there is a place for it. Raises TeacherError as described above."""
        async with self._slots:
            while self._failed is None:
                try:
                    with self._counted():
                        return await call()
                except BudgetSpent as error:
                    if not self._under_way:
                        self._failed = error
                    # else: what the others do not use of their share may do for this one
                    await self._idle.wait()
                except TeacherError as error:
                    self._failed = self._failed or error
        await self._idle.wait()
        raise self._failed

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
