"""The periodic jobs: at their interval, one at a time, whatever the clock says."""

from __future__ import annotations

import asyncio
import time

import pytest

from distill.scheduler import PeriodicJob, schedule


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0, -1e9, 1e9])
async def test_a_clock_that_is_set_neither_stops_nor_floods_the_jobs(
    monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    calls = 0
    often = asyncio.Event()

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            now = time.time
            monkeypatch.setattr(time, "time", lambda: now() + jump_s)
        if calls == 10:
            often.set()

    scheduler = schedule([PeriodicJob(work, 0.01)])
    async with asyncio.timeout(20):
        await often.wait()
    scheduler.shutdown()


async def test_a_job_that_fails_runs_again() -> None:
    calls = 0
    again = asyncio.Event()

    async def work() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            again.set()
        raise ValueError

    scheduler = schedule([PeriodicJob(work, 0.01, first_after_s=0)])
    async with asyncio.timeout(20):
        await again.wait()
    scheduler.shutdown()
