"""Forgetting end to end: in the tables, the runs' folders, the journal, and the database file.

    asked ──▶ deleted ──▶ done
      │          │           └ the database file was rewritten: no byte of it is left
      │          └ deleted from the tables; the runs that learned from it are marked
      └ recorded, as hashes: from here on nothing of it is collected any more

`Forgetter.forget` goes through the states in this order. Each step is idempotent, and `resume`
finishes what was interrupted. What a student's weights hold of it stays: its run is marked, and the
student serves on until another run replaces it, unless it is demoted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from distill.forget.answers import clear_kept_route, retract_answers
from distill.forget.inputs import retract_inputs
from distill.forget.journal_lines import clear_lines, remove_entry
from distill.forget.run_files import run_folders, strip, traces_in
from distill.pipeline.runner import Runner
from distill.run.history import RunLog
from store.database.database import Database
from store.database.forgetting import (
    AffectedRun,
    DeletionCounts,
    Subject,
    advance_forgetting,
    delete_staged,
    missing_traces,
    stage_deletions,
    subject_matcher,
)
from store.database.replace import kept_files
from store.database.runs import events_of_run, stage_detail, unfinished_runs
from store.database.store import Store
from store.errors import StoreError
from store.files.journal import DAMAGED_FOLDER, unsealed_segments
from store.files.kept import KeptSegments
from store.files.responses import forget_responses
from store.records import RunState
from store.settings.config import Config

MAX_SEAL_WAIT_S = 15.0  # some journal.segment_seconds: until writers have sealed their segments
LOST_TRACE = "a trace that it was to learn from is gone; the next run takes what is left"

log = logging.getLogger("understudy.forget")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgettingResult:
    """What a forgetting deleted, or would delete."""

    deleted: DeletionCounts
    serving: tuple[AffectedRun, ...]  # of the affected runs: those whose student is promoted
    demoted: tuple[str, ...] = ()  # tasks
    pending: int = 0  # journal files still being written; lines in them are dropped when collected
    rewritten: bool = False  # the database file


class Forgetter:
    """Forgets. Used by one event loop, one forgetting at a time."""

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        kept: KeptSegments,
        clock: Callable[[], float],
        collect: Callable[[], Awaitable[object]],
        follow: Callable[[], Awaitable[None]],
        demote: Callable[[str, str], Awaitable[object]],
        runner: Runner | None = None,
    ) -> None:
        """`kept`: the copies of collected segments. `collect` collects the sealed journal, `follow`
        publishes the routes, `demote` takes (task, actor). `runner`: None when no control plane
        runs.
        """
        self._store, self._config, self._kept, self._clock = store, config, kept, clock
        self._collect, self._follow, self._demote = collect, follow, demote
        self._runner = runner
        self._lock = asyncio.Lock()
        self._rewriting: asyncio.Task[bool] | None = None

    async def preview(self, subjects: Sequence[Subject]) -> ForgettingResult:
        """What would be deleted. Changes nothing, except that it collects the journal."""
        await self._collect()
        counts = await self._store.preview_forgetting(subjects)
        return ForgettingResult(deleted=counts, serving=await self._serving(counts))

    async def forget(
        self,
        subjects: Sequence[Subject],
        *,
        actor: str,
        reason: str = "",
        demote: bool = False,
        rewrite_timeout_s: float | None = None,
    ) -> ForgettingResult:
        """Forgets. `rewrite_timeout_s`: how long to wait for the database file to be rewritten;
        None: until it is.

        Raises StoreError. `resume` then finishes what was recorded.
        """
        async with self._lock:
            forgetting_id = await self._store.request_forgetting(
                subjects, at=self._clock(), actor=actor, reason=reason
            )
            log.info("forgetting %s: requested by %s", forgetting_id, actor)
            unsealed = await asyncio.to_thread(unsealed_segments, self._config.journal_dir)
            counts = await self._delete(forgetting_id)
            serving = await self._serving(counts)
            demoted = []
            for run in serving if demote else ():
                await self._demote(run.task, actor)
                demoted.append(run.task)
            pending = await self._wait_until_collected(unsealed)
            await self._store.run(self._clear_files, forgetting_id)
            return ForgettingResult(
                deleted=counts,
                serving=serving,
                demoted=tuple(demoted),
                pending=pending,
                rewritten=await self._rewrite(rewrite_timeout_s),
            )

    async def resume(self) -> None:
        """Finishes the forgettings that were interrupted. Raises StoreError."""
        async with self._lock:
            unfinished = await self._store.unfinished_forgettings()
            for forgetting_id, _ in unfinished:
                await self._delete(forgetting_id)
                await self._store.run(self._clear_files, forgetting_id)
            if unfinished:
                await self._rewrite(None)

    async def sweep(self) -> None:
        """Deletes from the runs' folders what the store does not have. Raises StoreError."""
        async with self._lock, self._no_new_runs():
            await self._sweep_folders()

    # ---- deleting -------------------------------------------------------------------------------

    @asynccontextmanager
    async def _no_new_runs(self) -> AsyncIterator[None]:
        """Inside, no run is started: it could learn from what is about to be deleted."""
        if self._runner is None:
            yield
        else:
            async with self._runner.held():
                yield

    async def _delete(self, forgetting_id: str) -> DeletionCounts:
        """From `asked` to `deleted`; repeated from `deleted`, for folders and damaged lines."""
        await self._collect()
        async with self._no_new_runs():
            counts = await self._store.run(self._delete_rows, forgetting_id)
            await self._sweep_folders()
        await self._follow()
        return counts

    def _delete_rows(self, db: Database, forgetting_id: str) -> DeletionCounts:
        """Everything in the tables, in one transaction."""
        with db.transaction():
            stage_deletions(db, forgetting_id)
            for run_id, retracted in retract_answers(db).items():
                clear_kept_route(self._config.runs_dir / run_id, retracted)  # idempotent
            retract_inputs(db, self._config.runs_dir)
            counts = delete_staged(db, forgetting_id, at=self._clock())
            advance_forgetting(db, forgetting_id, "deleted", counts)
        return counts

    async def _sweep_folders(self) -> None:
        """Ends the runs that work with deleted traces, and deletes these from the folders."""
        if self._runner is not None:
            await self._runner.give_up(self._holds_deleted, LOST_TRACE)
        for event in await self._store.unfinished_runs():
            if await self._holds_deleted(self._config.runs_dir / event.run_id):
                history = await RunLog.open(self._store, event.run_id, event.task, self._clock)
                await history.end(RunState.FAILED, LOST_TRACE)
        await self._store.delete_orphans()  # rows of a run that has ended just now
        await self._store.run(_strip_folders, self._config.runs_dir)

    async def _holds_deleted(self, folder: Path) -> bool:
        return await self._store.run(_holds_deleted, folder)

    def _clear_files(self, db: Database, forgetting_id: str) -> None:
        """Deletes the proxies' stored responses, lines of the journal, and damaged databases that a
        repair has kept: nobody can tell whose rows are in them.
        """
        for path in kept_files(self._config.database_file):
            log.warning("%s, which a repair has kept, is deleted", path)
            remove_entry(path)
        matcher = subject_matcher(db, forgetting_id)
        folder = self._config.responses_dir
        stored = [path.stem for path in folder.glob("*/*.json")]
        forget_responses(folder, [name for name in stored if matcher.matches_trace(name)])
        clear_lines(self._config.journal_dir / DAMAGED_FOLDER, matcher)
        with self._kept.exclusive():
            clear_lines(self._kept.folder, matcher)

    async def _serving(self, counts: DeletionCounts) -> tuple[AffectedRun, ...]:
        promotions = await self._store.latest_promotions()
        students = {p.run_id for p in promotions.values() if p.target == "student"}
        return tuple(run for run in counts.affected if run.run_id in students)

    # ---- the journal's open segments, and the database file -------------------------------------

    async def _wait_until_collected(self, segments: set[str]) -> int:
        """Waits until these segments are sealed and collected. Returns how many are not."""
        deadline = asyncio.get_running_loop().time() + MAX_SEAL_WAIT_S
        if self._runner is None:  # the journal has writers of other processes, if any
            return len(segments)
        while segments and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.1)
            await self._collect()
            segments = await asyncio.to_thread(_remaining, self._config.journal_dir, segments)
        return len(segments)

    async def _rewrite(self, timeout_s: float | None) -> bool:
        """Rewrites the database file. Returns whether that was done in time; it goes on if not."""
        if self._rewriting is None or self._rewriting.done():
            self._rewriting = asyncio.create_task(self._rewrite_file())
        done, _ = await asyncio.wait({self._rewriting}, timeout=timeout_s)
        return bool(done) and self._rewriting.result()

    async def _rewrite_file(self) -> bool:
        unfinished = await self._store.unfinished_forgettings()
        deleted = [forgetting_id for forgetting_id, state in unfinished if state == "deleted"]
        try:
            await self._store.rewrite()
            for forgetting_id in deleted:
                await self._store.advance_forgetting(forgetting_id, "done")
        except StoreError as error:
            log.error("deleted rows are still in the bytes of the database file: %s", error)
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


def _remaining(folder: Path, segments: set[str]) -> set[str]:
    """Those of these segments that are still there, sealed or not."""
    return {name for name in segments if any(folder.glob(f"{name}.*"))}
