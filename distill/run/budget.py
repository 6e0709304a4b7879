"""The paid calls of a run: logged one by one in its folder, and stored at the end."""

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
    """A client for a teacher, whose budget includes the run's earlier calls.

    Each call is in the run's folder as soon as it is paid. On leaving, also by an exception, all
    calls of the run are in the store. Only one such client of a run may be in use at a time.
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
    """Limits how many paid calls run at a time, and loses none of them when one fails.

    After a failure no further call begins. The error is raised in all callers, but only once the
    running calls have ended: a caller might cancel them, and they are paid for.
    """

    def __init__(self, at_a_time: int) -> None:
        self._slots = asyncio.Semaphore(at_a_time)
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._failed: TeacherError | None = None

    async def pay(self, call: Callable[[], Awaitable[T]]) -> T:
        """Makes a call when there is a free slot. Raises TeacherError as described above."""
        async with self._slots:
            while self._failed is None:
                try:
                    with self._counted():
                        return await call()
                except BudgetSpent as error:
                    if not self._running:
                        self._failed = error
                    # else: the others may leave enough of their reserved tokens for this one
                    await self._idle.wait()
                except TeacherError as error:
                    self._failed = self._failed or error
        await self._idle.wait()
        raise self._failed

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
