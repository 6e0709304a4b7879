"""What is done by hand: what each command means, what it refuses, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from distill.commands import Commands, PromotionCandidate, promotion_candidate
from distill.pipeline.promotion import save_route
from store.database.actions import actions_of_task, paused_tasks
from store.database.database import Database
from store.database.promotions import append_promotion, latest_promotions
from store.database.runs import append_run_event
from store.database.store import Store
from store.errors import CommandRefused
from store.ids import new_id
from store.records import (
    Promotion,
    RunEvent,
    RunState,
)
from store.settings.config import Config, StoreSettings, parse_config
from tests.helpers.samples import a_certificate, a_promotion, a_route, a_run_event

ENTRY = {"model_name": "m", "litellm_params": {"model": "openai/m", "api_key": "k"}}
STUDENT = "01990000-0000-7000-8000-000000000001"  # the same in every process that collects
OTHER = "01990000-0000-7000-8000-000000000002"


def turn(state: str, at: float, run_id: str | None = STUDENT, **changes: Any) -> Promotion:
    """A turn of the route; a demotion has none."""
    target = "teacher" if state == "demoted" else "student"
    route = None if target == "teacher" else a_route(student_id=run_id)
    values = {"state": state, "at": at, "target": target, "run_id": run_id, "route": route}
    return a_promotion(**{**values, **changes})


def ended(state: RunState, at: float, run_id: str = OTHER) -> RunEvent:
    return a_run_event(run_id, 5, state=state, at=at, reason="so it was")


REJECTED, FAILED = RunState.REJECTED, RunState.FAILED


@pytest.mark.parametrize(
    ("history", "runs", "force", "taken", "forced"),
    [
        ([turn("shadow", 5)], [], False, STUDENT, False),
        ([turn("canary", 6), turn("shadow", 5)], [], False, STUDENT, False),
        # one that waits for its evidence has its certificate: forcing changes nothing
        ([turn("canary", 6)], [ended(REJECTED, 9)], True, STUDENT, False),
        ([turn("demoted", 9), turn("live", 5)], [], True, STUDENT, True),
        ([turn("demoted", 9), turn("live", 5)], [ended(REJECTED, 7)], True, STUDENT, True),
        ([turn("demoted", 9), turn("live", 5)], [ended(REJECTED, 11)], True, OTHER, True),
        # demoted by hand before runs wrote down whose student it was
        ([turn("demoted", 9, None), turn("live", 5)], [], True, STUDENT, True),
        ([], [ended(REJECTED, 3)], True, OTHER, True),
        # a run that failed afterwards has left nothing in its place
        ([], [ended(REJECTED, 3), ended(FAILED, 4, STUDENT)], True, OTHER, True),
        ([turn("live", 5)], [ended(REJECTED, 9)], True, OTHER, True),
    ],
)
def test_which_student_a_promotion_promotes(
    history: list[Promotion], runs: list[RunEvent], force: bool, taken: str, forced: bool
) -> None:
    found = promotion_candidate(history, runs, force=force)
    assert (found.run_id, found.forced) == (taken, forced)


@pytest.mark.parametrize(
    ("history", "runs", "force", "said"),
    [
        ([], [], True, "no run has made a student yet; `retrain` starts one"),
        ([], [ended(FAILED, 3)], True, "the last run failed (so it was) and left no student"),
        ([], [ended(REJECTED, 3)], False, "turned the last student down (so it was); --force"),
        ([turn("live", 5)], [], False, "its student is live already"),
        ([turn("live", 5)], [ended(REJECTED, 3)], True, "its student is live already"),
        ([turn("live", 5)], [ended(REJECTED, 9)], False, "turned the last student down"),
        (
            [turn("demoted", 9, actor="audit", reason="12 of 40 disagreed"), turn("live", 5)],
            [],
            False,
            "was demoted by audit (12 of 40 disagreed); --force brings it back",
        ),
    ],
)
def test_why_there_is_nothing_to_promote(
    history: list[Promotion], runs: list[RunEvent], force: bool, said: str
) -> None:
    with pytest.raises(CommandRefused) as refused:
        promotion_candidate(history, runs, force=force)
    assert said in str(refused.value)


class Scene:
    """A store with runs on the disk, commands for it, and a clock that moves with each look."""

    def __init__(self, folder: Path, db: Database, **settings: Any) -> None:
        self.config: Config = parse_config(
            {"model_list": [ENTRY], "data_dir": str(folder), **settings}
        )
        self.db = db
        self.followed = 0
        ticks = count(1000)
        self.commands = Commands(
            Store(db), self.config, clock=lambda: next(ticks), follow=self._follow
        )

    async def _follow(self) -> None:
        self.followed += 1

    def judged(self, state: RunState = REJECTED, *, at: float = 100.0, adapter: bool = True) -> str:
        """A run that was judged, with all that it leaves."""
        run_id = new_id()
        folder = self.config.runs_dir / run_id
        certificate = a_certificate(run_id=run_id, passed=False, reason="lower bound 0.9 < 0.95")
        folder.mkdir(parents=True)
        if adapter:
            (folder / "train-real").mkdir()
        route = a_route(student_id=run_id, step="shadow", share=0.0, cutoff=0.7)
        save_route(folder, route)
        trained = {"base": "b", "adapter": "train-real"}
        detail = {"certificate": asdict(certificate)}
        for event in (
            a_run_event(run_id, 0, state=RunState.TRAINED, at=at - 1, detail=trained),
            a_run_event(run_id, 1, state=state, at=at, reason=certificate.reason, detail=detail),
        ):
            append_run_event(self.db, event)
        return run_id

    def promoted(self, state: str) -> str:
        """A run whose student the gate let through, as it stands now."""
        run_id = self.judged(RunState.PROMOTED)
        append_promotion(self.db, turn(state, 150.0, run_id))
        return run_id

    @property
    def latest(self) -> Promotion:
        return latest_promotions(self.db)["triage"]

    async def do(self, command: Any, **how: Any) -> str:
        return await self.commands.do("triage", command, actor="support", **how)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Database(tmp_path / "understudy.duckdb", StoreSettings()) as db:
        yield Scene(tmp_path, db)


async def test_pause_and_resume_are_recorded_and_published(scene: Scene) -> None:
    assert "until `resume`" in await scene.do("pause", reason="a new prompt")
    assert paused_tasks(scene.db) == {"triage"}
    assert "resumed" in await scene.do("resume")
    assert paused_tasks(scene.db) == set()
    assert scene.followed == 2
    assert [(a.command, a.actor, a.reason, a.at) for a in actions_of_task(scene.db, "triage")] == [
        ("resume", "support", "", 1001),
        ("pause", "support", "a new prompt", 1000),
    ]
    assert latest_promotions(scene.db) == {}


async def test_a_task_that_the_config_pauses_stays_paused(tmp_path: Path) -> None:
    with Database(tmp_path / "understudy.duckdb", StoreSettings()) as db:
        scene = Scene(tmp_path, db, tasks={"triage": {"paused": True}})
        assert "the config pauses it too: it stays paused" in await scene.do("resume")
        assert "waits for `resume`" in await scene.do("retrain")


async def test_retrain_is_recorded_as_an_action(scene: Scene) -> None:
    assert await scene.do("retrain", reason="new labels") == "a run is due now"
    [action] = actions_of_task(scene.db, "triage")
    assert (action.command, action.reason, action.forced) == ("retrain", "new labels", False)


@pytest.mark.parametrize("state", ["shadow", "canary"])
async def test_promote_skips_the_remaining_rollout_steps(scene: Scene, state: str) -> None:
    run_id = scene.promoted(state)
    before = scene.latest
    done = await scene.do("promote", reason="we are sure")
    found = scene.latest
    assert done == f"promoted: the student in {state} is live with a share of 100%"
    assert (found.state, found.run_id, found.actor) == ("live", run_id, "support")
    assert (found.reason, found.forced) == ("we are sure", False)
    assert found.certificate == before.certificate
    assert found.route is not None
    assert (found.route.step, found.route.share, found.route.forced) == ("live", 1.0, False)
    assert found.route.fingerprints == before.route.fingerprints  # type: ignore[union-attr]
    assert scene.followed == 1


async def test_the_full_share_is_the_last_one_of_the_settings(tmp_path: Path) -> None:
    with Database(tmp_path / "understudy.duckdb", StoreSettings()) as db:
        scene = Scene(tmp_path, db, task_defaults={"rollout": {"shares": [0.1, 0.5]}})
        scene.promoted("shadow")
        assert "a share of 50%" in await scene.do("promote")
        assert scene.latest.route is not None
        assert scene.latest.route.share == 0.5


async def test_a_rejected_student_is_forced_exactly_as_it_was_judged(scene: Scene) -> None:
    run_id = scene.judged()
    with pytest.raises(CommandRefused):
        await scene.do("promote")
    assert (scene.followed, actions_of_task(scene.db, "triage")) == (0, [])
    done = await scene.do("promote", force=True, reason="the test set is old")
    found = scene.latest
    assert "past the gate" in done
    assert (found.state, found.forced, found.run_id) == ("live", True, run_id)
    assert found.route is not None
    assert (found.route.forced, found.route.share, found.route.step) == (True, 1.0, "live")
    assert (found.route.terms.cutoff, found.route.student_id) == (0.7, run_id)
    assert found.certificate is not None
    assert not found.certificate.passed
    [action] = actions_of_task(scene.db, "triage")
    assert (action.command, action.forced) == ("promote", True)


async def test_a_demoted_student_comes_back_by_force_alone(scene: Scene) -> None:
    run_id = scene.promoted("live")
    assert await scene.do("demote", reason="complaints") == "demoted from live: the teacher answers"
    down = scene.latest
    assert (down.target, down.state, down.actor) == ("teacher", "demoted", "support")
    assert (down.run_id, down.reason, down.suspect_since) == (run_id, "complaints", None)
    with pytest.raises(CommandRefused, match="demoted by support"):
        await scene.do("promote")
    await scene.do("promote", force=True)
    assert (scene.latest.run_id, scene.latest.forced) == (run_id, True)
    with pytest.raises(CommandRefused, match="live already"):
        await scene.do("promote", force=True)


async def test_a_clock_that_was_set_back_undoes_no_command(scene: Scene) -> None:
    run_id = scene.judged(RunState.PROMOTED)
    append_promotion(scene.db, turn("live", 5000.0, run_id))
    await scene.do("demote")
    assert scene.latest.state == "demoted"
    await scene.do("promote", force=True)
    assert (scene.latest.state, scene.latest.forced) == ("live", True)


async def test_demoting_without_a_student_is_refused(scene: Scene) -> None:
    with pytest.raises(CommandRefused, match="the teacher answers already"):
        await scene.do("demote")
    scene.promoted("canary")
    await scene.do("demote")
    with pytest.raises(CommandRefused, match="the teacher answers already"):
        await scene.do("demote")


async def test_a_student_whose_files_are_gone_is_not_promoted(scene: Scene) -> None:
    scene.judged(adapter=False)
    with pytest.raises(CommandRefused, match=r"the adapter of run .* is gone; `retrain`"):
        await scene.do("promote", force=True)
    run_id = scene.judged(at=200.0)
    file = scene.config.runs_dir / run_id / "route.json"
    file.write_text("{")
    with pytest.raises(CommandRefused, match=r"route\.json cannot be read .*`retrain`"):
        await scene.do("promote", force=True)
    file.unlink()
    with pytest.raises(CommandRefused, match=r"left no judged student \(lower bound 0\.9 < 0\.95"):
        await scene.do("promote", force=True)
    assert latest_promotions(scene.db) == {}


def test_a_candidate_says_which_student_it_is() -> None:
    found = promotion_candidate([turn("demoted", 9), turn("live", 5)], [], force=True)
    assert isinstance(found, PromotionCandidate)
    assert found.what == "the demoted student"
