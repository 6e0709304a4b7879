"""The effects of the settings of the journal, the store and the scheduler."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import duckdb

from distill.collect import collect
from distill.control import ControlPlane, periodic_jobs
from distill.forget.retention import Retention
from distill.forget.run_files import DAY_S
from distill.pipeline.runner import Runner
from distill.run.progress import Board
from distill.run.run import Parts
from store.database.database import Database
from store.database.forgetting import Subject
from store.database.runs import append_run_event
from store.database.store import Store
from store.database.traces import task_counts
from store.errors import TeacherError
from store.files.journal import JournalWriter, sealed_segments
from store.files.kept import KEPT_FOLDER, KeptSegments
from store.ids import new_id
from store.process.runtime import Runtime
from store.records import RunState
from store.settings.config import parse_config
from tests.helpers.effects import Effect, Raw
from tests.helpers.forget_scene import TASK as TRIAGE
from tests.helpers.forget_scene import USER, a_forgetter, fill_folder, nothing
from tests.helpers.samples import a_run_event, a_trace, write_segment


def segments_handed_on(raw: Raw) -> int:
    """After a trace of 20 kB, and two seconds."""
    config, now = parse_config(raw), 0.0
    writer = JournalWriter(config.journal_dir, config.journal, clock=lambda: now)
    writer.append(a_trace(input_messages="x" * 20_000))
    now = 2.0
    writer.tick()
    found = len(sealed_segments(config.journal_dir))
    writer.close()
    return found


def traces_lost(raw: Raw) -> int:
    """Of three with 9 kB each, when there is no folder for them."""
    config = parse_config(raw)
    config.data_dir.parent.mkdir()
    config.data_dir.write_text("in the way")
    writer = JournalWriter(config.journal_dir, config.journal)
    for _ in range(3):
        writer.append(a_trace(input_messages="x" * 9_000))
    return writer.health.lost


def traces_synced(raw: Raw) -> int:
    """How often `fsync` is called for three traces, as Python's own profiler hears of it."""
    config, called = parse_config(raw), []

    def hear(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            called.append(function)

    writer, before = JournalWriter(config.journal_dir, config.journal), sys.getprofile()
    sys.setprofile(hear)
    try:
        for _ in range(3):
            writer.append(a_trace())
    finally:
        sys.setprofile(before)
    writer.close()
    return called.count(os.fsync)


def duckdbs(setting: str) -> Callable[[Raw], Any]:
    """A setting of DuckDB's in the store's own connection, which a migration writes down."""

    def seen(raw: Raw) -> Any:
        config = parse_config(raw)
        steps = config.data_dir / "migrations"
        steps.mkdir(parents=True)
        note = f"CREATE TABLE noted AS SELECT current_setting('{setting}') AS setting"
        (steps / "0001_note.sql").write_text(note)
        Database(config.database_file, config.store, migrations=steps).close()
        with duckdb.connect(str(config.database_file), read_only=True) as plain:
            [(found,)] = plain.execute("SELECT setting FROM noted").fetchall()
        return found

    return seen


def seconds_between(work: str) -> Callable[[Raw], Any]:
    """How often the control plane's scheduler does this work."""

    async def seen(raw: Raw) -> float:
        config = parse_config(raw)
        with Database(config.database_file, config.store) as db:
            plane = ControlPlane(config, Runtime("", control_port=1, control_token="t"), db)
            every = {job.work.__qualname__: job.seconds for job in periodic_jobs(plane)}
        return float(every[work])

    return seen


def traces_kept(raw: Raw) -> Any:
    """Of two, 20 and 40 days old, after a look at what is too old."""

    async def seen() -> int:
        config, now = parse_config(raw), 100 * DAY_S
        with Database(config.database_file, config.store) as db:
            ages = [a_trace(start_time=now - days * DAY_S) for days in (20, 40)]
            write_segment(config.journal_dir, *ages)
            collect(db, config.journal_dir, {})
            sweep = a_forgetter(db, config).sweep
            await Retention(Store(db), config, clock=lambda: now, sweep=sweep).check()
            return sum(task_counts(db).values())

    return seen()


def runs_kept(raw: Raw) -> Any:
    """Of the folders of three, which ended 60, 40 and 20 days ago."""

    async def seen() -> int:
        config, now = parse_config(raw), 100 * DAY_S
        with Database(config.database_file, config.store) as db:
            for days in (60, 40, 20):
                run_id = new_id()
                (config.runs_dir / run_id).mkdir(parents=True)
                ended = a_run_event(run_id, state=RunState.REJECTED, at=now - days * DAY_S)
                append_run_event(db, ended)
            sweep = a_forgetter(db, config).sweep
            await Retention(Store(db), config, clock=lambda: now, sweep=sweep).check()
        return len(list(config.runs_dir.iterdir()))

    return seen()


def marked_is_due(raw: Raw) -> Any:
    """Whether a student that learned from what was forgotten is replaced before new traces come."""

    async def seen() -> bool:
        config = parse_config(raw)
        fill_folder(config)
        with Database(config.database_file, config.store) as db:
            now = time.time()
            await a_forgetter(db, config).forget(
                [Subject(kind="user", subject=USER, until=now)], actor="ann"
            )
            parts = Parts(store=Store(db), clock=lambda: now, teacher=no_teacher)
            runner = Runner(config, parts, Board(), on_end=nothing)
            async with runner.held():
                await runner.check()
            return runner.decisions[TRIAGE].due

    return seen()


def no_teacher(*_: object) -> Any:
    """Nothing is asked of one."""
    raise TeacherError


def megabytes_of_copies(raw: Raw) -> int:
    """Of six segments of 16 MB, collected an hour apart."""
    config = parse_config(raw)
    for hour in range(6):
        kept = KeptSegments(
            config.journal_dir,
            days=config.journal_keep_days,
            megabytes=config.journal.keep_mb,
            clock=lambda hour=hour: time.time() + hour * 3600,
        )
        kept.keep([b"x" * (16 << 20)])
    return sum(file.size for file in kept.files()) >> 20


def copies_of_last_week(raw: Raw) -> int:
    """Of segments that were collected one, three and five days ago."""
    config = parse_config(raw)
    kept = KeptSegments(
        config.journal_dir, days=config.journal_keep_days, megabytes=config.journal.keep_mb
    )
    for days in (5, 3, 1):
        path = config.journal_dir / KEPT_FOLDER / f"20260131{days:02}-0.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}\n")
        os.utime(path, (time.time() - days * DAY_S,) * 2)
    kept.prune()
    return len(kept.files())


STORING: dict[str, Effect] = {
    "retention.traces_days": Effect(traces_kept, (30, 1), (None, 2)),
    "retention.runs_days": Effect(runs_kept, (30, 1), (50, 2)),
    "retention.retrain_forgotten": Effect(
        marked_is_due, (True, True), (False, False), {"task_defaults.cooldown_s": 0}
    ),
    "journal.segment_seconds": Effect(segments_handed_on, (2, 1), (2.1, 0)),
    "journal.segment_mb": Effect(
        segments_handed_on, (0.01, 1), (0.1, 0), {"journal.segment_seconds": 10}
    ),
    "journal.backlog_mb": Effect(traces_lost, (0.01, 2), (0.1, 0)),
    "journal.fsync": Effect(traces_synced, (False, 0), (True, 3)),
    "journal.keep_days": Effect(copies_of_last_week, (4, 2), (2, 1)),
    "journal.keep_mb": Effect(megabytes_of_copies, (40, 32), (70, 64)),
    "store.memory_limit": Effect(duckdbs("memory_limit"), ("1GiB", "1.0 GiB"), ("2GiB", "2.0 GiB")),
    "store.threads": Effect(duckdbs("threads"), (1, 1), (3, 3)),
    "scheduler.ingest_seconds": Effect(seconds_between("ControlPlane.tick"), (1, 1), (7, 7)),
    "scheduler.due_seconds": Effect(seconds_between("Runner.check"), (5, 5), (7, 7)),
    "scheduler.health_seconds": Effect(seconds_between("Students.check"), (2, 2), (7, 7)),
}
