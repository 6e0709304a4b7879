"""Retention deletes old traces in batches, and the folders of runs that are not needed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from distill.collect import collect
from distill.forget import retention
from distill.forget.retention import Retention
from distill.forget.run_files import DAY_S, expired_runs
from store.database import forgetting
from store.database.database import Database
from store.database.promotions import latest_promotions
from store.database.runs import evaluations_of_run
from store.database.store import Store
from store.database.traces import task_counts
from store.records import Promotion, RunState
from store.settings.config import Config, parse_config
from tests.helpers.forget_scene import (
    CANARY,
    OTHER,
    TASK,
    FilledFolder,
    a_forgetter,
    fill_folder,
    places_of,
    trace_of,
)
from tests.helpers.samples import a_promotion, a_run_event, write_segment
from tests.helpers.stored import examples_of_run, policy_of_run

ENTRY = {"model_name": "gpt-4o", "litellm_params": {"model": "openai/gpt-4o", "api_key": "k"}}
NOW = time.time()


def config(folder: Path, **days: object) -> Config:
    return parse_config({"model_list": [ENTRY], "data_dir": str(folder), "retention": days})


def make_older(folder: Path, *patterns: str) -> None:
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        os.utime(path, (NOW - 31 * DAY_S,) * 2)


def a_retention(db: Database, settings: Config, now: float) -> Retention:
    forgetter = a_forgetter(db, settings, clock=lambda: now)
    return Retention(Store(db), settings, clock=lambda: now, sweep=forgetter.sweep)


@pytest.mark.slow
async def test_expired_traces_are_deleted_with_everything_derived_from_them(tmp_path: Path) -> None:
    settings = config(tmp_path, traces_days=30)
    filled: FilledFolder = fill_folder(settings, at=NOW - 31 * DAY_S)
    make_older(tmp_path, "journal/damaged/*", "journal/kept/*", "*-damaged-*")
    young = trace_of(OTHER, 7, user="bob", answer="young", at=NOW - 29 * DAY_S)
    imported = trace_of(
        OTHER, 8, user="bob", answer="imported", at=1000.0, source="import:openai-stored"
    )
    with Database(settings.database_file, settings.store) as db:
        write_segment(settings.journal_dir, young, imported)
        collect(db, settings.journal_dir, {})
        await a_retention(db, settings, NOW).check()
        assert task_counts(db)[TASK] == 2  # an import is as old as the importing of it
        assert examples_of_run(db, filled.run_id) == []
        assert policy_of_run(db, filled.run_id) is None
        assert forgetting.marked_runs(db) == {}
        assert forgetting.unfinished_forgettings(db) == []
        assert latest_promotions(db)[TASK].run_id == filled.run_id
        numbers = evaluations_of_run(db, filled.run_id)
        assert numbers
        assert {(e.teacher_output, e.student_output) for e in numbers} == {("", None)}
        before = task_counts(db)
        await a_retention(db, settings, NOW).check()
        assert task_counts(db) == before
    # what is left are labels, and a response that was given just now by its id
    texts = [
        p for p in places_of(CANARY, tmp_path) if p.startswith(("runs/", "journal/", "understudy-"))
    ]
    assert texts == [f"runs/{filled.run_id}/route.json"]
    folder = settings.runs_dir / filled.run_id
    assert (folder / "train-real" / "adapter" / "adapters.safetensors").exists()
    assert not (folder / "evaluations.jsonl").exists()


@pytest.mark.slow
async def test_without_retention_settings_nothing_is_deleted(tmp_path: Path) -> None:
    settings = config(tmp_path)
    fill_folder(settings, at=NOW - 5000 * DAY_S)
    with Database(settings.database_file, settings.store) as db:
        await a_retention(db, settings, NOW).check()
        assert task_counts(db)[TASK] == 18
    assert len(list(settings.runs_dir.iterdir())) == 4


@pytest.mark.slow
async def test_more_expired_traces_than_a_batch_are_all_deleted(tmp_path: Path) -> None:
    """The journal is collected in between."""
    settings = config(tmp_path, traces_days=1)
    many = [
        trace_of(OTHER, n, user="", answer="x", at=1000.0 + n)
        for n in range(retention.BATCH_TRACES + 5)
    ]
    with Database(settings.database_file, settings.store) as db:
        write_segment(settings.journal_dir, *many)
        collect(db, settings.journal_dir, {})
        assert forgetting.expire_traces(db, 1000.0 + 10, 4) == 4  # the oldest
        assert not db.query("exchange_by_id", trace_id=many[3].trace_id)
        assert db.query("exchange_by_id", trace_id=many[4].trace_id)
        await a_retention(db, settings, NOW).check()
        assert task_counts(db) == {}


@pytest.mark.slow
async def test_folders_of_old_runs_are_deleted(tmp_path: Path) -> None:
    settings = config(tmp_path, runs_days=10)
    filled = fill_folder(settings, at=NOW - 11 * DAY_S)
    (settings.runs_dir / "not a run").mkdir()
    with Database(settings.database_file, settings.store) as db:
        await a_retention(db, settings, NOW).check()
        assert task_counts(db)[TASK] == 18  # their traces have a term of their own
    left = {path.name for path in settings.runs_dir.iterdir()}
    # its student serves; it has not ended; it is the task's last one; it is none of ours
    assert left == {filled.run_id, filled.unfinished, filled.cut_short, "not a run"}


def turn(run_id: str | None, target: str, at: float) -> Promotion:
    return a_promotion(run_id=run_id, target=target, at=at, route=None)


OLD, NEW = 100.0, 900.0


@pytest.mark.parametrize(
    ("ends", "turns", "gone"),
    [
        ([("a", OLD)], [], []),  # the last one
        ([("a", OLD), ("b", OLD)], [], ["a"]),
        ([("a", OLD), ("b", NEW)], [], ["a"]),
        ([("a", OLD), ("b", NEW)], [("a", "student")], []),  # it serves
        ([("a", OLD), ("b", NEW)], [("a", "student"), ("a", "teacher")], []),  # was demoted
        ([("a", OLD), ("b", OLD), ("c", NEW)], [("a", "student"), ("b", "student")], ["a"]),
        ([("a", NEW), ("b", NEW)], [], []),
    ],
)
def test_which_runs_are_too_old(
    ends: list[tuple[str, float]], turns: list[tuple[str, str]], gone: list[str]
) -> None:
    ended = [a_run_event(run_id, state=RunState.REJECTED, at=at) for run_id, at in ends]
    history = [turn(*one, at=float(n)) for n, one in enumerate(turns)][::-1]
    found = expired_runs({"t": ended}, {"t": history}, ["a", "b", "c"], 500.0)
    assert found == gone
    assert expired_runs({"t": ended}, {"t": history}, [], 500.0) == []
