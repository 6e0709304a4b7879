"""Opening the database, and what the control plane does as long as it cannot: it says why.

It owns nothing then, so that `understudy repair` can work beside a running server, and looks at the
file again and again. Students are not served, and their tasks' routes go to the teacher.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from distill.ownership import owned
from distill.presence import Heart
from store.database.database import Database
from store.errors import StoreDamaged, StoreError
from store.files.routes import publish_routes, read_routes
from store.records import Reason
from store.settings.config import Config

LOOK_S = 0.5  # between two looks at the file
RETRY_S = 20.0  # until the next try where the file has not changed

log = logging.getLogger("understudy.control")

FileState = tuple[tuple[int, int, int], ...]


async def open_when_possible(
    config: Config, stop: asyncio.Event, heart: Heart, on_fault: Callable[[StoreError], None]
) -> tuple[ExitStack, Database] | None:
    """The database, with what releases it and its lock; None when a stop comes first.

    `heart` hears how long a try takes, `on_fault` is called for each that fails.
    """
    said = ""
    while not stop.is_set():
        before = _state(config.database_file)
        try:
            with heart.opening():
                return await asyncio.to_thread(_open, config)
        except StoreError as error:
            if str(error) != said:
                log.error("%s", error)
            said = str(error)
            on_fault(error)
        await _until_changed(config.database_file, before, stop)
    return None


def give_routes_to_teacher(path: Path, *, at: float) -> None:
    """Publishes the routes that stand in the file, with no student in them: none is up."""
    with suppress(StoreError):
        routes = read_routes(path)
        waiting = {
            task: replace(route, target="teacher", reason=Reason.STUDENT_STARTING, base_url=None)
            if route.target == "student"
            else route
            for task, route in routes.items()
        }
        if waiting != routes:
            publish_routes(path, waiting, at=at)


def is_damage(error: StoreError) -> bool:
    """Whether no other process serves students from this database."""
    return isinstance(error, StoreDamaged)


def _open(config: Config) -> tuple[ExitStack, Database]:
    with ExitStack() as stack:
        stack.enter_context(owned(config.data_dir))
        db = stack.enter_context(Database(config.database_file, config.store))
        return stack.pop_all(), db


async def _until_changed(file: Path, before: FileState, stop: asyncio.Event) -> None:
    """Returns when the file, or its write-ahead log, is not as it was; or after a time."""
    loop = asyncio.get_running_loop()
    until = loop.time() + RETRY_S
    while not stop.is_set() and loop.time() < until and _state(file) == before:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await stop.wait()


def _state(file: Path) -> FileState:
    found = []
    for path in (file, file.with_name(f"{file.name}.wal")):
        with suppress(OSError):
            state = path.lstat()
            found.append((state.st_ino, state.st_size, state.st_mtime_ns))
    return tuple(found)
