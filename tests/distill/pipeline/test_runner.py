"""The runner: failing runs have a reason, cost nothing and are followed by a cooldown."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from distill.collect import collect
from distill.pipeline.runner import MAX_STARTS, Runner, new_traces
from distill.run.progress import Board
from distill.run.run import Parts, Run
from distill.teacher.client import TeacherClient
from store.chat.shape import input_hash
from store.database.actions import append_action
from store.database.comparisons import write_comparisons
from store.database.database import Database
from store.database.promotions import append_promotion
from store.database.runs import append_run_event, ended_runs
from store.database.store import Store
from store.files.journal import JournalWriter, sealed_segments
from store.files.line_log import LineLog
from store.ids import new_id
from store.records import (
    Promotion,
    Reason,
    RunEvent,
    RunState,
    TeacherCall,
    Trace,
)
from store.settings.config import Config, parse_config
from tests.helpers.samples import a_comparison, a_promotion, a_trace, an_action, write_segment


def config(folder: Path, **task: object) -> Config:
    entry = {"model_name": "m", "litellm_params": {"model": "openai/m", "api_key": "k"}}
    defaults = {"min_traces": 20, "cooldown_s": 1000, **task}
    return parse_config({"model_list": [entry], "data_dir": str(folder), "task_defaults": defaults})


def fill(db: Database, settings: Config, count: int, *, route: str = "teacher") -> None:
    """Traces of one task, through the journal."""
    writer = JournalWriter(settings.journal_dir, settings.journal)
    for number in range(count):
        messages = [{"role": "user", "content": f"what is {number}?"}]
        writer.append(
            Trace(
                trace_id=new_id(),
                start_time=1000.0 + number,
                end_time=1001.0 + number,
                task="sums",
                served_by="teacher",
                route=route,  # type: ignore[arg-type]
                reason=Reason.NO_STUDENT,
                outcome="complete",
                status_code=200,
                request_model="m",
                finish_reasons=["stop"],
                input_messages=f'[{{"role":"user","content":"what is {number}?"}}]',
                output_messages=f'[{{"role":"assistant","content":"{number % 3}"}}]',
                input_hash=input_hash(messages),
                fingerprint="f",
            )
        )
    writer.close()
    assert sealed_segments(settings.journal_dir)
    collect(db, settings.journal_dir, {})


class Scene:
    """A runner over a real store, with a clock to set and an unreachable teacher."""

    def __init__(self, settings: Config, db: Database) -> None:
        self.now = 5000.0
        self.db = db
        self.ended = asyncio.Event()
        self.clients = 0
        parts = Parts(store=Store(db), clock=lambda: self.now, teacher=self._teacher)
        self.runner = Runner(
            settings, parts, Board(), on_end=self._on_end, monotonic=lambda: self.now
        )

    def _teacher(
        self, model: str, run: Run, record: Callable[[TeacherCall], None]
    ) -> TeacherClient:
        self.clients += 1
        return TeacherClient(
            base_url="http://127.0.0.1:9/v1",
            api_key="k",
            model=model,
            record=record,
            run_id=run.run_id,
            task=run.task,
            token_budget=10_000,
        )

    async def _on_end(self) -> None:
        self.ended.set()

    async def run_one(self) -> RunEvent | None:
        """Calls the runner's check and waits for the run that it starts."""
        self.ended.clear()
        await self.runner.check()
        if not self.runner.busy:
            return None
        await self.ended.wait()
        return ended_runs(self.db, "sums")[-1]


@pytest.mark.slow
async def test_a_run_with_too_few_heldout_rows_ends_before_any_paid_call(
    tmp_path: Path, db: Database
) -> None:
    settings = config(tmp_path)
    fill(db, settings, 40)
    scene = Scene(settings, db)
    ended = await scene.run_one()
    assert ended is not None
    assert ended.state is RunState.REJECTED
    assert "held-out groups" in ended.reason
    assert "needs 9" in ended.reason  # 97 or 98, by what the calibration groups can promise
    assert scene.clients == 0
    supply = ended.detail["supply"]
    await scene.runner.decide()
    waits = scene.runner.decisions["sums"]
    assert not waits.due
    needed = re.search(r"needs (\d+)", ended.reason)
    assert needed is not None
    assert waits.reason.startswith(
        f"waiting for groups: {supply['heldout']} held-out groups, {needed[1]} needed; that takes "
    )


@pytest.mark.parametrize(
    ("label", "says"),
    [("yes", "no answer of the teacher has it"), ("1", "but a recall of 0.4 needs ")],
)
@pytest.mark.slow
async def test_a_run_that_cannot_prove_a_protected_label_ends_before_any_paid_call(
    tmp_path: Path, db: Database, label: str, says: str
) -> None:
    settings = config(tmp_path, gate={"threshold": 0.5, "protect": [label]})
    fill(db, settings, 40)
    scene = Scene(settings, db)
    ended = await scene.run_one()
    assert ended is not None
    assert ended.state is RunState.REJECTED
    assert ended.reason.startswith(f"protected {label}: ")
    assert says in ended.reason
    assert scene.clients == 0


@pytest.mark.slow
async def test_a_teacher_that_is_down_fails_the_run_and_the_next_one_waits(
    tmp_path: Path, db: Database
) -> None:
    settings = config(tmp_path, gate={"threshold": 0.5})
    fill(db, settings, 40)
    scene = Scene(settings, db)
    ended = await scene.run_one()
    assert ended is not None
    assert ended.state is RunState.FAILED
    assert ended.reason
    assert "what is" not in ended.reason
    assert await scene.run_one() is None
    assert "cooling down" in scene.runner.decisions["sums"].reason
    scene.now += 1001
    assert (await scene.run_one()) is not None


@pytest.mark.slow
async def test_a_judged_run_has_used_up_its_traces(tmp_path: Path, db: Database) -> None:
    settings = config(tmp_path)
    fill(db, settings, 40)
    scene = Scene(settings, db)
    await scene.run_one()
    scene.now += 10_000
    assert await scene.run_one() is None
    assert scene.runner.decisions["sums"].reason.endswith("new teacher traces, and 0 have come")


async def test_fallbacks_do_not_count_as_new_traces(tmp_path: Path, db: Database) -> None:
    """They are the requests that a student was unsure of: no fair sample of the task."""
    settings = config(tmp_path)
    fill(db, settings, 40, route="fallback")
    scene = Scene(settings, db)
    assert await scene.run_one() is None
    assert scene.runner.decisions["sums"].reason.startswith("collecting: 0 of 20")


async def test_an_unfinished_run_goes_first_and_is_given_up_after_some_deaths(
    tmp_path: Path, db: Database
) -> None:
    settings = config(tmp_path)
    fill(db, settings, 40)
    run_id = new_id()
    append_run_event(
        db, RunEvent(run_id=run_id, seq=0, task="sums", state=RunState.COLLECTED, at=1.0)
    )
    for _ in range(MAX_STARTS):
        LineLog(settings.runs_dir / run_id / "starts.jsonl").append({"at": 1.0})
    scene = Scene(settings, db)
    ended = await scene.run_one()
    assert ended is not None
    assert (ended.run_id, ended.state) == (run_id, RunState.FAILED)
    assert "not tried again" in ended.reason


async def test_a_paused_task_has_no_run(tmp_path: Path, db: Database) -> None:
    settings = config(tmp_path, paused=True)
    fill(db, settings, 40)
    scene = Scene(settings, db)
    assert await scene.run_one() is None
    assert scene.runner.decisions["sums"].reason == "paused"


@pytest.mark.slow
async def test_a_task_paused_by_hand_starts_and_resumes_no_run(
    tmp_path: Path, db: Database
) -> None:
    settings = config(tmp_path)
    fill(db, settings, 40)
    append_run_event(
        db, RunEvent(run_id=new_id(), seq=0, task="sums", state=RunState.COLLECTED, at=1.0)
    )
    append_action(db, an_action(task="sums", command="pause", at=1.0))
    scene = Scene(settings, db)
    assert await scene.run_one() is None
    assert scene.runner.decisions["sums"].reason == "paused"
    append_action(db, an_action(task="sums", command="resume", at=2.0))
    assert await scene.run_one() is not None


@pytest.mark.slow
async def test_a_requested_run_starts_at_once_and_only_once(tmp_path: Path, db: Database) -> None:
    settings = config(tmp_path)
    fill(db, settings, 40)
    scene = Scene(settings, db)
    assert await scene.run_one() is not None
    assert await scene.run_one() is None
    append_action(db, an_action(task="sums", command="retrain"))
    assert await scene.run_one() is not None
    assert "by hand" in scene.runner.decisions["sums"].reason
    assert await scene.run_one() is None
    assert "by hand" not in scene.runner.decisions["sums"].reason


@pytest.mark.slow
async def test_a_run_that_ends_during_the_decision_is_not_started_again(
    tmp_path: Path, db: Database
) -> None:
    settings = config(tmp_path)
    fill(db, settings, 40)
    # tasks that are judged after the one with the run, for longer than the run takes
    others = [a_trace(task=f"task-{number}") for number in range(50)]
    write_segment(settings.journal_dir, *others)
    collect(db, settings.journal_dir, {})
    scene = Scene(settings, db)
    await scene.runner.check()
    while scene.runner.busy:
        await scene.runner.check()
    assert len(ended_runs(db, "sums")) == 1
    await scene.runner.check()
    assert not scene.runner.busy


@pytest.mark.slow
async def test_a_demoted_task_cools_down(tmp_path: Path, db: Database) -> None:
    settings = config(tmp_path)
    fill(db, settings, 40)
    demotion = a_promotion(
        task="sums", target="teacher", state="demoted", route=None, at=4500.0, suspect_since=0.0
    )
    append_promotion(db, demotion)
    scene = Scene(settings, db)
    assert await scene.run_one() is None
    assert "the student was demoted" in scene.runner.decisions["sums"].reason
    scene.now += 501
    assert await scene.run_one() is not None


def test_requests_that_the_student_is_certified_for_are_no_new_traces(
    tmp_path: Path, db: Database
) -> None:
    settings = config(tmp_path)
    traces = [
        a_trace(task="sums", start_time=at, reason=reason)
        for at, reason in (
            (100.0, Reason.SHADOW),
            (200.0, Reason.NOT_IN_SHARE),
            (300.0, Reason.OTHER_FINGERPRINT),
            (400.0, Reason.STUDENT_STARTING),
        )
    ]
    write_segment(settings.journal_dir, *traces)
    collect(db, settings.journal_dir, {})
    audits = [a_comparison(task="sums", kind="audit", at=at) for at in (150.0, 250.0, 350.0)]
    write_comparisons(db, [*audits, a_comparison(task="sums", at=350.0)])

    def new(promotion: Promotion | None, since: float = 0.0) -> int:
        history = [promotion] if promotion is not None else []
        return new_traces(db, "sums", history, since)

    demoted = a_promotion(task="sums", target="teacher", state="demoted", route=None)
    assert new(None) == 4
    assert new(None, 250) == 2
    assert new(a_promotion(task="sums")) == 2
    assert new(demoted) == 4 + 3
    assert new(replace(demoted, suspect_since=240.0)) == 2 + 2
    assert new(replace(demoted, suspect_since=240.0), 320.0) == 1 + 1
