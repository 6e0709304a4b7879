"""The paid calls of a run: one ledger for all stages, and no call lost when another fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pytest

from demo.teacher.teacher import start_teacher
from distill.dataset.answers import answers_of
from distill.dataset.rows import Selection
from distill.evaluate.ceiling import noise_stage
from distill.evaluate.scoring import Scorer
from distill.pipeline.examples import make_examples
from distill.run.budget import Till, paid_calls, paid_client, teacher_of
from store.database.database import Database
from store.errors import BudgetSpent, TeacherError
from store.settings.config import StoreSettings
from tests.helpers.demo_rows import LABELS, rows_of
from tests.helpers.effects import no_progress
from tests.helpers.judging import a_run, parts_with
from tests.helpers.stored import teacher_calls_of_run

by_id = attrgetter("call_id")


@pytest.mark.slow
async def test_all_stages_of_a_run_have_one_ledger(tmp_path: Path) -> None:
    rows = rows_of(LABELS, 40)
    heldout = [replace(row, split="heldout") for row in rows_of(LABELS, 25, seed=2)]
    run = a_run(tmp_path / "run", amplify={"target": 12, "batch": 6})
    async with await start_teacher() as teacher:
        with Database(tmp_path / "db.duckdb", StoreSettings()) as db:
            parts = parts_with(db, teacher.base_url)
            for _ in range(2):  # as often as one likes: each is paid for once
                made = await make_examples(
                    run, parts, Selection(rows), answers_of(rows), no_progress
                )
                outcome = await noise_stage(
                    run, parts, heldout, Scorer("exact", 1.0, "label", ""), no_progress
                )
            calls = teacher_calls_of_run(db, run.run_id)
            assert sorted(calls, key=by_id) == sorted(paid_calls(run.folder), key=by_id)
            async with paid_client(run, parts, teacher_of(rows)) as client:
                assert client.spent == sum(c.input_tokens + c.output_tokens for c in calls)
        assert len(calls) == sum(teacher.counts.values())
    assert made.detail["kept"] == 12
    assert outcome is not None
    assert (outcome.n, outcome.share) == (20, 1.0)
    purposes = Counter(c.purpose for c in calls)
    assert (purposes["policy"], purposes["noise"]) == (1, 20)
    assert purposes["answers"] >= 12


def test_the_teacher_of_most_rows_is_chosen() -> None:
    rows = rows_of(LABELS, 5)
    models = ["b", "a", "b", "c", "a"]
    named = [replace(row, model=name) for row, name in zip(rows, models, strict=True)]
    assert teacher_of(named) == "a"  # of two equally common ones the first by name
    assert teacher_of(named[:3]) == "b"


def taking(seconds: float, log: list[str], name: str) -> Callable[[], Awaitable[str]]:
    """A call that succeeds."""

    async def call() -> str:
        await asyncio.sleep(seconds)
        log.append(name)
        return name

    return call


async def test_a_failure_is_raised_after_the_running_calls_have_ended() -> None:
    till, log = Till(2), []

    async def fails() -> str:
        log.append("failed")
        raise TeacherError("gone")

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as group:
            slow = group.create_task(till.pay(taking(0.1, log, "slow")))
            group.create_task(till.pay(fails))
            for _ in range(3):
                group.create_task(till.pay(taking(0, log, "late")))
    assert log == ["failed", "slow"]  # none of the late ones was begun
    assert slow.result() == "slow"
    assert {str(e) for e in raised.value.exceptions} == {"gone"}


async def test_a_call_beyond_the_budget_waits_for_reserved_tokens_of_others() -> None:
    till, log, tries = Till(3), [], []

    async def dear() -> str:
        tries.append(len(log))
        if not log:
            raise BudgetSpent("too much")
        return "dear"

    outcome = await asyncio.gather(till.pay(taking(0.05, log, "slow")), till.pay(dear))
    assert outcome == ["slow", "dear"]
    assert tries == [0, 1]


async def test_a_call_that_is_too_much_by_itself_fails_at_once() -> None:
    async def dear() -> str:
        raise BudgetSpent("too much")

    till = Till(3)
    results = await asyncio.gather(*(till.pay(dear) for _ in range(5)), return_exceptions=True)
    assert {str(result) for result in results} == {"too much"}
