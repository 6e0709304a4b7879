"""Commands take effect at once: the routes that the proxies read, and what is due."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from distill.commands import Commands
from distill.control import ControlPlane
from distill.pipeline.promotion import save_route
from store.database.database import Database
from store.database.promotions import append_promotion
from store.database.runs import append_run_event
from store.database.store import Store
from store.files.routes import read_routes
from store.ids import new_id
from store.process.runtime import Runtime
from store.records import Route, RunState
from store.settings.config import StoreSettings, parse_config
from tests.helpers.samples import a_promotion, a_route, a_run_event, a_trace, write_segment

ENTRY = {"model_name": "gpt-4o", "litellm_params": {"model": "openai/gpt-4o", "api_key": "k"}}


class Scene:
    """A control plane with a student in canary, whose server has not been started."""

    def __init__(self, folder: Path, db: Database) -> None:
        self.config = parse_config({"model_list": [ENTRY], "data_dir": str(folder)})
        self.db = db
        write_segment(self.config.journal_dir, *(a_trace() for _ in range(5)))
        self.run_id = new_id()
        run = self.config.runs_dir / self.run_id
        (run / "train-real").mkdir(parents=True)
        self.route = a_route(student_id=self.run_id, step="canary", share=0.05, base_url=None)
        save_route(run, self.route)
        trained = {"base": "b", "adapter": "train-real"}
        for seq, (state, detail) in enumerate(
            [(RunState.TRAINED, trained), (RunState.PROMOTED, {})]
        ):
            event = a_run_event(self.run_id, seq, state=state, at=100.0 + seq, detail=detail)
            append_run_event(db, event)
        promotion = a_promotion(run_id=self.run_id, route=self.route, state="canary", at=200.0)
        append_promotion(db, promotion)
        self.plane = ControlPlane(self.config, Runtime("", control_port=1, control_token="t"), db)
        self.commands = Commands(
            Store(db), self.config, clock=lambda: 1000.0, follow=self.plane.follow_promotions
        )

    async def do(self, command: Any, **how: Any) -> Route | None:
        """Gives the command; what the proxies read of the task when it has returned."""
        await self.commands.do("triage", command, actor="support", **how)
        return read_routes(self.config.routes_file).get("triage")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with Database(tmp_path / "understudy.duckdb", StoreSettings()) as db:
        found = Scene(tmp_path, db)
        await found.plane.collect()
        await found.plane.follow_promotions()
        yield found
        await found.plane.monitor.stop()
        await found.plane.students.stop()


@pytest.mark.slow
async def test_a_pause_and_its_end_are_in_the_routes(scene: Scene) -> None:
    route = await scene.do("pause")
    assert route is not None
    assert (route.target, route.reason) == ("teacher", "paused")
    assert scene.plane.students.states() == {}
    route = await scene.do("resume")
    assert route is not None
    assert route.reason == "student_starting"
    assert list(scene.plane.students.states()) == ["triage"]


@pytest.mark.slow
async def test_a_demotion_and_a_forced_promotion_are_in_the_routes(scene: Scene) -> None:
    gone = await scene.do("demote")
    assert gone is None or gone.target == "teacher"
    assert scene.plane.students.states() == {}
    back = await scene.do("promote", force=True)
    assert back is not None
    assert (back.share, back.step, back.forced) == (1.0, "live", True)
    assert back.student_id == scene.run_id
    assert list(scene.plane.students.states()) == ["triage"]


@pytest.mark.slow
async def test_a_promotion_gives_the_full_share(scene: Scene) -> None:
    route = await scene.do("promote")
    assert route is not None
    assert (route.share, route.step, route.forced) == (1.0, "live", False)


@pytest.mark.slow
async def test_retrain_makes_a_task_due_that_would_wait_for_more(scene: Scene) -> None:
    await scene.plane.runner.decide()
    assert not scene.plane.runner.decisions["triage"].due
    await scene.do("retrain")
    await scene.plane.runner.decide()
    assert scene.plane.runner.decisions["triage"].due
    await scene.do("pause")
    await scene.plane.runner.decide()
    assert not scene.plane.runner.decisions["triage"].due
