"""Forgetting, as a whole: out of the tables, the runs' folders, the journal, and the file itself.

    asked ──▶ deleted ──▶ done
      │          │           └ the database file is written anew: no byte of it is left
      │          └ gone from the tables; who learned from it is marked
      └ written down, as hashes: from here on nothing of it is collected any more

`Forgetter.forget` goes through it from top to bottom. Each step may be done again, and `resume`
does what a kill has left over. What a student's weights hold of it stays: the student is marked,
and serves on until a run replaces it, unless it is demoted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import orjson

from distill.forget.answers import clear_forms, clear_kept_route
from distill.forget.run_files import run_folders, strip, traces_in
from distill.run.history import RunLog
from store.database.database import Database
from store.database.forgetting import (
    Going,
    Known,
    Learned,
    Subject,
    advance_forgetting,
    delete_staged,
    missing_traces,
    stage_deletions,
    subjects_of_forgetting,
)
from store.database.runs import events_of_run, stage_detail, unfinished_runs
from store.database.store import Store
from store.errors import StoreError
from store.files.atomic import write_atomically
from store.files.journal import DAMAGED_FOLDER, unsealed_segments
from store.files.responses import forget_responses
from store.records import RunState
from store.settings.config import Config

WRITERS_SEAL_WITHIN_S = 15.0  # some journal.segment_seconds; then it is no longer waited for
LOST = "a trace that it was to learn from is gone; the next run takes what is left"

log = logging.getLogger("understudy.forget")


class Runs(Protocol):
    """Who starts runs: distill.pipeline.runner.Runner."""

    def held(self) -> AbstractAsyncContextManager[None]:
        """Inside, no run is begun."""

    async def give_up(self, lost: Callable[[Path], Awaitable[bool]], reason: str) -> None:
        """Ends the run under way as failed, when `lost` says so of its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What a forgetting came to."""

    going: Going  # what went, or would go
    serving: tuple[Learned, ...]  # of those who learned from it: the students that are promoted
    demoted: tuple[str, ...] = ()  # tasks
    pending: int = 0  # journal files still written to; what is in them is dropped when they come in
    written_anew: bool = False  # the database file


class Forgetter:
    """Forgets. Used by one event loop, one forgetting at a time."""

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        clock: Callable[[], float],
        collect: Callable[[], Awaitable[object]],
        follow: Callable[[], Awaitable[None]],
        demote: Callable[[str, str], Awaitable[object]],
        runs: Runs | None = None,
    ) -> None:
        """`collect` takes in what the journal has sealed. `follow` publishes what the routes say.
        `demote` takes (task, actor). `runs`: None when no control plane runs.
        """
        self._store, self._config, self._clock = store, config, clock
        self._collect, self._follow, self._demote = collect, follow, demote
        self._runs = runs
        self._turn = asyncio.Lock()
        self._writing: asyncio.Task[bool] | None = None

    async def look(self, subjects: Sequence[Subject]) -> Forgotten:
        """What would go. Changes nothing, but for collecting the journal."""
        await self._collect()
        going = await self._store.preview_forgetting(subjects)
        return Forgotten(going=going, serving=await self._serving(going))

    async def forget(
        self,
        subjects: Sequence[Subject],
        *,
        actor: str,
        reason: str = "",
        demote: bool = False,
        patience_s: float = float("inf"),
    ) -> Forgotten:
        """Forgets. `patience_s`: how long it is waited for the file to be written anew.

        Raises StoreError. What is written down by then is gone through to its end by `resume`.
        """
        async with self._turn:
            forgetting_id = await self._store.request_forgetting(
                subjects, at=self._clock(), actor=actor, reason=reason
            )
            log.info("forgetting %s: asked for by %s", forgetting_id, actor)
            still_open = await asyncio.to_thread(unsealed_segments, self._config.journal_dir)
            going = await self._delete(forgetting_id)
            serving = await self._serving(going)
            demoted = []
            for one in serving if demote else ():
                await self._demote(one.task, actor)
                demoted.append(one.task)
            pending = await self._wait_for(still_open)
            await self._store.run(self._clear_files, forgetting_id)
            return Forgotten(
                going=going,
                serving=serving,
                demoted=tuple(demoted),
                pending=pending,
                written_anew=await self._write_anew(patience_s),
            )

    async def resume(self) -> None:
        """Goes on with what was asked for and did not come to its end. Raises StoreError."""
        async with self._turn:
            left = await self._store.unfinished_forgettings()
            for forgetting_id, _ in left:
                await self._delete(forgetting_id)
                await self._store.run(self._clear_files, forgetting_id)
            if left:
                await self._write_anew(float("inf"))

    async def sweep(self) -> None:
        """Takes out of the runs' folders what is gone from the store. Raises StoreError."""
        async with self._turn:
            if self._runs is None:
                await self._sweep_folders()
            else:
                async with self._runs.held():
                    await self._sweep_folders()

    # ---- deleting -------------------------------------------------------------------------------

    async def _delete(self, forgetting_id: str) -> Going:
        """From `asked` to `deleted`, and again from there: folders and damaged lines."""
        await self._collect()
        if self._runs is None:
            going = await self._delete_all(forgetting_id)
        else:
            async with self._runs.held():  # a new run could take what is about to go
                going = await self._delete_all(forgetting_id)
        await self._follow()
        return going

    async def _delete_all(self, forgetting_id: str) -> Going:
        going = await self._store.run(self._delete_rows, forgetting_id)
        await self._sweep_folders()
        return going

    def _delete_rows(self, db: Database, forgetting_id: str) -> Going:
        """Everything in the tables, at once or not at all."""
        with db.transaction():
            stage_deletions(db, forgetting_id)
            for run_id, words in clear_forms(db).items():
                clear_kept_route(self._config.runs_dir / run_id, words)  # a kill does it again
            going = delete_staged(db, forgetting_id, at=self._clock())
            advance_forgetting(db, forgetting_id, "deleted", going)
        return going

    async def _sweep_folders(self) -> None:
        """Ends the runs that work with what is gone, and takes it out of the folders."""
        if self._runs is not None:
            await self._runs.give_up(self._lost, LOST)
        for event in await self._store.unfinished_runs():
            folder = self._config.runs_dir / event.run_id
            if await self._lost(folder):
                history = await RunLog.open(self._store, event.run_id, event.task, self._clock)
                await history.end(RunState.FAILED, LOST)
        # what a run had written that has ended just now
        await self._store.delete_orphans()
        await self._store.run(_strip_folders, self._config.runs_dir)

    async def _lost(self, folder: Path) -> bool:
        return await self._store.run(_holds_deleted, folder)

    def _clear_files(self, db: Database, forgetting_id: str) -> None:
        """What proxies have kept of it beside the journal, and what could not be collected."""
        known = subjects_of_forgetting(db, forgetting_id)
        folder = self._config.responses_dir
        kept = [path.stem for path in folder.glob("*/*.json")]
        forget_responses(folder, [name for name in kept if known.takes_trace(name)])
        self._clear_damaged(known)

    def _clear_damaged(self, known: Known) -> None:
        """The lines that are of it, and those that nobody can read: nobody knows whose they are."""
        folder = self._config.journal_dir / DAMAGED_FOLDER
        for path in sorted(folder.glob("*")):
            if path.name.startswith("."):  # of a collector that was killed
                path.unlink(missing_ok=True)
                continue
            lines = path.read_bytes().split(b"\n")
            left = [line for line in lines if line.strip() and _is_anothers(line, known)]
            if not left:
                path.unlink(missing_ok=True)
            elif len(left) < sum(bool(line.strip()) for line in lines):
                write_atomically(path, b"\n".join([*left, b""]))

    async def _serving(self, going: Going) -> tuple[Learned, ...]:
        promotions = await self._store.latest_promotions()
        students = {p.run_id for p in promotions.values() if p.target == "student"}
        return tuple(one for one in going.learned if one.run_id in students)

    # ---- the journal's open files, and the database's own ---------------------------------------

    async def _wait_for(self, names: set[str]) -> int:
        """Waits until these segments are collected, and says how many are not."""
        deadline = asyncio.get_running_loop().time() + WRITERS_SEAL_WITHIN_S
        if self._runs is None:  # whoever writes there now is not ours
            return len(names)
        while names and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.1)
            await self._collect()
            names = await asyncio.to_thread(_waiting, self._config.journal_dir, names)
        return len(names)

    async def _write_anew(self, patience_s: float) -> bool:
        """Writes the database file anew. Whether that came to its end in time."""
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._rewrite())
        done, _ = await asyncio.wait(
            {self._writing}, timeout=None if patience_s == float("inf") else patience_s
        )
        return bool(done) and self._writing.result()

    async def _rewrite(self) -> bool:
        left = await self._store.unfinished_forgettings()
        owed = [forgetting_id for forgetting_id, state in left if state == "deleted"]
        try:
            await self._store.rewrite()
            for forgetting_id in owed:
                await self._store.advance_forgetting(forgetting_id, "done")
        except StoreError as error:
            log.error("what was forgotten is still in the file, if not in its tables: %s", error)
            return False
        return True


def _holds_deleted(db: Database, folder: Path) -> bool:
    """Whether a run's folder holds texts of traces that the store does not have."""
    ids = traces_in(folder)
    return bool(ids) and bool(missing_traces(db, sorted(ids)))


def _strip_folders(db: Database, runs_dir: Path) -> None:
    """Deletes the texts from the folders of ended runs that hold deleted traces."""
    unfinished = {event.run_id for event in unfinished_runs(db)}
    for run_id, folder in run_folders(runs_dir).items():
        if run_id not in unfinished and _holds_deleted(db, folder):
            detail = stage_detail(db, run_id, "trained")
            last = events_of_run(db, run_id)[-1:]
            keep = bool(last) and last[0].state is not RunState.FAILED
            strip(folder, str(detail["adapter"]) if keep and detail.get("adapter") else None)


def _waiting(folder: Path, names: set[str]) -> set[str]:
    """Those of these segments that are still there, sealed or not."""
    return {name for name in names if any(folder.glob(f"{name}.*"))}


def _is_anothers(line: bytes, known: Known) -> bool:
    try:
        read = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return isinstance(read, dict) and not known.takes(read)
