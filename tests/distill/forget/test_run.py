"""Forgetting during a run: the run ends if it has a forgotten trace, else it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from distill.collect import collect
from distill.forget.forgetting import Forgetter
from distill.pipeline.runner import Runner
from distill.run.progress import Board
from distill.run.run import Parts, Run
from distill.teacher.client import TeacherClient
from distill.threads import Threads
from store.database import forgetting
from store.database.database import Database
from store.database.forgetting import Subject
from store.database.promotions import append_promotion
from store.database.runs import append_run_event, events_of_run, unfinished_runs
from store.database.store import Store
from store.jsontext import to_json
from store.records import (
    RunState,
    TeacherCall,
    Trace,
)
from store.settings.config import Config, parse_config
from store.settings.tasks import TaskSettings
from tests.helpers.forget_scene import a_forgetter, nothing, trace_of
from tests.helpers.live_scene import until
from tests.helpers.samples import a_promotion, a_run_event, write_segment
from tests.helpers.stored import examples_of_run
from tests.helpers.teacher_server import LoopbackServer, completion

TASK = "triage"


@dataclass
class Scene:
    """A runner whose teacher never comes to an end, and a forgetter beside it."""

    config: Config
    db: Database
    runner: Runner
    forgetter: Forgetter
    teacher: LoopbackServer
    traces: list[Trace]

    async def begin(self) -> str:
        """Starts a run, until it asks the teacher. Returns its id."""
        await self.runner.check()
        assert self.runner.decisions[TASK].due, self.runner.decisions[TASK]
        await until(lambda: bool(self.teacher.requests), within_s=30)
        return unfinished_runs(self.db)[0].run_id

    async def forget(self, *traces: Trace) -> None:
        subjects = [Subject(kind="trace", subject=trace.trace_id) for trace in traces]
        await self.forgetter.forget(subjects, actor="ann")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    entry = {"model_name": "m", "litellm_params": {"model": "openai/m", "api_key": "k"}}
    task = {"min_traces": 20, "gate": {"threshold": 0.5, "confidence": 0.6}}
    config = parse_config({"model_list": [entry], "data_dir": str(tmp_path), "task_defaults": task})
    threads = Threads()
    asyncio.get_running_loop().set_default_executor(threads)
    traces = [
        trace_of("one", n, user=f"user {n}", answer=f"{n % 3}", at=1000.0 + n) for n in range(60)
    ]
    with (
        LoopbackServer(lambda _: completion("never").slow(60)) as teacher,
        Database(config.database_file, config.store) as db,
    ):
        write_segment(config.journal_dir, *traces)
        collect(db, config.journal_dir, {})

        def client(model: str, run: Run, record: Callable[[TeacherCall], None]) -> TeacherClient:
            return TeacherClient(
                base_url=teacher.base_url,
                api_key="k",
                model=model,
                record=record,
                run_id=run.run_id,
                task=run.task,
                token_budget=1_000_000,
            )

        parts = Parts(store=Store(db), clock=lambda: 5000.0, teacher=client)
        runner = Runner(config, parts, Board(), on_end=nothing, settled=threads.settled)
        forgetter = a_forgetter(db, config, runner=runner)
        try:
            yield Scene(config, db, runner, forgetter, teacher, traces)
        finally:
            await runner.stop()


@pytest.mark.slow
async def test_a_run_with_a_forgotten_trace_is_ended(scene: Scene) -> None:
    run_id = await scene.begin()
    await scene.forget(scene.traces[0])
    assert not scene.runner.busy
    last = events_of_run(scene.db, run_id)[-1]
    assert last.state is RunState.FAILED
    assert "is gone" in last.reason
    assert not (scene.config.runs_dir / run_id).exists()
    assert examples_of_run(scene.db, run_id) == []
    assert forgetting.marked_runs(scene.db) == {}  # it made no student


@pytest.mark.slow
async def test_a_run_without_the_forgotten_trace_goes_on(scene: Scene) -> None:
    other = trace_of("two", 1, user="bob", answer="1", at=1.0, task="another task")
    write_segment(scene.config.journal_dir, other)
    run_id = await scene.begin()
    await scene.forget(other)
    assert scene.runner.busy
    assert unfinished_runs(scene.db)[0].run_id == run_id
    assert not scene.db.query("exchange_by_id", trace_id=other.trace_id)


@pytest.mark.slow
async def test_no_run_begins_during_a_forgetting(scene: Scene) -> None:
    async with scene.runner.held():
        await scene.runner.check()
        assert not scene.runner.busy
    await scene.begin()


@pytest.mark.parametrize(
    ("at_once", "new", "due"), [(False, 0, False), (False, 1, True), (True, 0, True)]
)
@pytest.mark.slow
async def test_a_marked_student_makes_a_run_due(
    scene: Scene, at_once: bool, new: int, due: bool
) -> None:
    """With the next new trace, or at once; and not again and again."""
    db = scene.db
    run_id = "0196b3c4-0000-7000-8000-000000000001"
    done = {"used_until": 2000.0}
    for seq, (state, detail) in enumerate(
        {RunState.COLLECTED: done, RunState.TRAINED: {}, RunState.PROMOTED: done}.items()
    ):
        event = a_run_event(run_id, seq, task=TASK, state=state, at=2000.0, detail=detail)
        append_run_event(db, event)
    append_promotion(db, a_promotion(task=TASK, run_id=run_id, at=2000.0))
    mark = {"forgetting_id": run_id, "run_id": run_id, "task": TASK, "traces": 1, "at": 3000.0}
    db.execute("insert_marks", rows=to_json([{**mark, "synthetic": 0}]).decode())
    fresh = [trace_of("new", n, user="", answer="1", at=4000.0 + n) for n in range(new)]
    if fresh:
        write_segment(scene.config.journal_dir, *fresh)
        collect(db, scene.config.journal_dir, {})
    config = scene.config.model_copy(
        update={
            "retention": scene.config.retention.model_copy(update={"retrain_forgotten": at_once}),
            "task_defaults": TaskSettings(min_traces=200),
        }
    )
    parts = Parts(store=Store(db), clock=lambda: 5000.0, teacher=lambda *_: pytest.fail("asked"))
    runner = Runner(config, parts, Board(), on_end=nothing)
    async with runner.held():
        await runner.check()
        assert runner.decisions[TASK].due is due
        judged = a_run_event("0196b3c4-0000-7000-8000-000000000002", 0, task=TASK, at=3500.0)
        append_run_event(db, judged)
        append_run_event(
            db, replace(judged, seq=1, state=RunState.REJECTED, detail={"used_until": 9000.0})
        )
        await runner.check()
        assert "of 200 new" in runner.decisions[TASK].reason
