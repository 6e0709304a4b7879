"""The control plane and a student that serves: from the journal to the routes, beat by beat."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from distill.control import KEY_FILE, ControlPlane
from distill.scheduler import PeriodicJob, schedule
from distill.students.students import Students, StudentSpec
from store.database.database import Database
from store.database.promotions import append_promotion
from store.errors import StoreDamaged
from store.files.routes import read_routes
from store.ids import new_id
from store.process.control_page import ControlPage
from store.process.runtime import Runtime
from store.records import (
    Promotion,
    Reason,
    Route,
    Trace,
)
from store.settings.config import Config, parse_config
from tests.helpers.live_scene import EVERY_AUDIT, answering, right, until
from tests.helpers.samples import a_promotion, a_route, a_trace, write_segment
from tests.helpers.serving import settings
from tests.helpers.stored import comparisons_of_student, teacher_calls_of_run
from tests.helpers.teacher_server import LoopbackServer, error


@pytest.fixture
def teacher():
    with LoopbackServer(answering(right)) as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, teacher: LoopbackServer) -> Config:
    defaults = {"audit": EVERY_AUDIT}
    return parse_config(settings(teacher.base_url, tmp_path / "data", task_defaults=defaults))


@asynccontextmanager
async def planned(config: Config, db: Database) -> AsyncIterator[ControlPlane]:
    """A control plane, stopped in the end."""
    plane = ControlPlane(config, Runtime("", control_port=1, control_token="t"), db)
    try:
        yield plane
    finally:
        await plane.monitor.stop()
        await plane.students.stop()


def promote(db: Database) -> Promotion:
    """A student that is live, and whose server is not up."""
    run_id = new_id()
    route = a_route(student_id=run_id, base_url=None, cutoff=None, output="text")
    promotion = a_promotion(run_id=run_id, at=time.time() - 60, route=route)
    append_promotion(db, promotion)
    return promotion


def served(number: int, promotion: Promotion) -> Trace:
    return a_trace(
        served_by="student",
        route="student",
        reason=Reason.CERTIFIED,
        student_id=promotion.run_id,
        input_messages=f'[{{"role":"user","content":"text {number}"}}]',
        output_messages='[{"role":"assistant","content":"nonsense"}]',
    )


def route(config: Config) -> Route:
    return read_routes(config.routes_file)["triage"]


@pytest.mark.slow
async def test_a_wrong_student_leaves_the_routes(
    config: Config, db: Database, teacher: LoopbackServer
) -> None:
    student = promote(db)
    async with planned(config, db) as plane:
        await plane.collect()
        await plane.follow_promotions()
        assert route(config).reason == Reason.STUDENT_STARTING

        write_segment(config.journal_dir, *(served(n, student) for n in range(40)))
        await plane.tick()
        assert plane.monitor.state("triage") is not None
        await until(lambda: not plane.monitor.busy)
        assert (route(config).target, route(config).reason) == ("teacher", Reason.DEMOTED)
        assert plane.monitor.state("triage") is None
    audits = comparisons_of_student(db, str(student.run_id))
    calls = teacher_calls_of_run(db, str(student.run_id))
    assert {c.purpose for c in calls} == {"audits"}
    assert len(calls) >= len(audits) > 0
    keys = {r.headers["authorization"] for r in teacher.requests}
    assert keys == {"Bearer sk-the-teachers-own-key"}
    assert stat.S_IMODE((config.data_dir / KEY_FILE).stat().st_mode) == 0o600


@pytest.mark.slow
async def test_a_stop_amid_audits_is_clean(
    config: Config, db: Database, teacher: LoopbackServer
) -> None:
    teacher.answer = lambda r: answering(right)(r).slow(30)
    student = promote(db)
    async with planned(config, db) as plane:
        write_segment(config.journal_dir, *(served(n, student) for n in range(3)))
        await plane.tick()
        await until(lambda: len(teacher.requests) == 3)
        async with asyncio.timeout(5):
            await plane.monitor.stop()
        assert [t for t in asyncio.all_tasks() if t.get_name().startswith("audits")] == []
    assert not comparisons_of_student(db, str(student.run_id))

    teacher.answer = answering(right)  # and the next process goes on
    async with planned(config, db) as plane:
        await plane.tick()
        await until(lambda: not plane.monitor.busy)
    assert len(comparisons_of_student(db, str(student.run_id))) == 3


async def test_routes_that_could_not_be_published_are_published_later(
    config: Config, db: Database
) -> None:
    promote(db)
    async with planned(config, db) as plane:
        in_the_way = config.routes_file.with_name(f".routes.json.{os.getpid()}.part")
        in_the_way.mkdir()
        await plane.tick()
        assert not config.routes_file.exists()
        in_the_way.rmdir()
        await plane.tick()
        assert route(config).reason == Reason.STUDENT_STARTING


@pytest.mark.slow
async def test_while_the_teacher_is_overloaded_audits_stay_pending(
    config: Config, db: Database, teacher: LoopbackServer
) -> None:
    teacher.answer = lambda _: error(503, "overloaded")
    student = promote(db)
    async with planned(config, db) as plane:
        write_segment(config.journal_dir, served(1, student))
        await plane.tick()
        await until(lambda: not plane.monitor.busy)
        state = plane.monitor.state("triage")
        assert state is not None
        assert state.audits.owed == 1
        assert "503" in state.waits_for


async def test_a_stop_collects_before_anything_that_takes_its_time(
    config: Config, db: Database
) -> None:
    """A student that does not end takes all the time that the control plane has to stop."""
    never = asyncio.Event()

    class Endless:
        base_url, pid = "http://127.0.0.1:1", None

        async def start(self) -> None:
            pass

        async def stop(self) -> None:
            await never.wait()

        async def healthy(self) -> bool:
            return True

    plane = ControlPlane(config, Runtime("", control_port=1, control_token="t"), db)
    plane.students = Students(on_change=plane.publish, server=lambda _: Endless())
    plane.students.want({"triage": StudentSpec("run", "base", config.data_dir)})
    write_segment(config.journal_dir, a_trace())
    stopping = asyncio.create_task(plane.stop())
    await until(lambda: plane.health.collected == 1)
    assert not stopping.done()
    never.set()
    await stopping


async def test_a_job_that_a_stop_cancels_logs_no_error(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.sleep(3600)

    scheduler = schedule([PeriodicJob(work, 3600, first_after_s=0)])
    await begun.wait()
    scheduler.shutdown()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


async def test_an_entry_that_cannot_be_collected_shows_in_the_status_and_to_the_proxies(
    config: Config, db: Database
) -> None:
    page = ControlPage.create()
    plane = ControlPlane(config, Runtime("", control_port=1, control_token="t"), db, page)
    page.beat()
    config.journal_dir.mkdir(parents=True)
    (config.journal_dir / "1.jsonl").mkdir()
    write_segment(config.journal_dir, a_trace())
    await plane.collect()
    assert (plane.health.ok, plane.health.set_aside, plane.health.skipped) == (True, 1, [])
    assert plane.health.collected == 1
    assert (page.state.collecting, page.state.set_aside) == (True, 1)

    await plane.store.run(lambda db: db.close())
    write_segment(config.journal_dir, a_trace())
    await plane.collect()
    assert not page.state.collecting
    assert "is closed" in page.state.fault
    page.close()


async def test_a_damaged_part_shows_to_everybody_and_collecting_goes_on(
    config: Config, db: Database
) -> None:
    page = ControlPage.create()
    plane = ControlPlane(config, Runtime("", control_port=1, control_token="t"), db, page)
    db.damage = StoreDamaged()  # a query has met it
    write_segment(config.journal_dir, a_trace())
    await plane.collect()
    assert (plane.health.ok, plane.health.collected) == (False, 1)
    assert "understudy repair" in str(plane.health.error)
    assert (page.state.collecting, page.state.fault) == (True, plane.health.error)
    page.close()


async def test_a_deleted_routes_file_is_back_after_a_tick_also_without_a_store(
    config: Config, db: Database
) -> None:
    promote(db)
    async with planned(config, db) as plane:
        await plane.follow_promotions()
        before = route(config)
        config.routes_file.unlink()
        await plane.tick()
        assert route(config) == before
        await plane.store.run(lambda db: db.close())
        config.routes_file.write_text("")
        await plane.tick()
        assert route(config) == before
