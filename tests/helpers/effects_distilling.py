"""The effects of the settings of runs, splits and synthetic inputs. The table comes last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import orjson

from demo.teacher.teacher import DemoTeacher, start_teacher
from demo.teacher.wire import Reply, StandInCompletion
from distill.amplify.diversity import Aims, BatchPlan, plan_batch
from distill.control import ControlPlane
from distill.dataset.answers import answers_of
from distill.dataset.rows import SPLITS
from distill.dataset.split import SplitGroup, split_groups
from distill.dataset.texts import user_text
from distill.pipeline.due import due
from store.database.database import Database
from store.database.runs import ended_runs
from store.process.runtime import Runtime
from store.records import (
    RunEvent,
    RunState,
    Split,
)
from store.settings.config import parse_config
from tests.helpers.amplifying import amplified, kept, server
from tests.helpers.counting_server import counting
from tests.helpers.demo_rows import LABELS, rows_of
from tests.helpers.effects import TASK, Effect, Raw, of_task
from tests.helpers.samples import a_trace, write_segment
from tests.helpers.teacher_server import LoopbackServer, error

# ---- when a task gets a run --------------------------------------------------------------------


def is_due(raw: Raw) -> bool:
    """With 100 new traces, 100 seconds after the last run."""
    last = RunEvent(run_id="r", seq=9, task=TASK, state=RunState.REJECTED, at=1000.0)
    return due(settings=of_task(raw), new_traces=100, ended=[last], ended_ago_s=100.0).due


@asynccontextmanager
async def judged(raw: Raw) -> AsyncIterator[tuple[ControlPlane, Database]]:
    """A control plane with 40 traces of a task that has decided whether it is due."""
    config = parse_config(raw)
    traces = [
        a_trace(
            task=TASK,
            start_time=1000.0 + number,
            input_messages=f'[{{"role":"user","content":"what is {number}?"}}]',
            output_messages=f'[{{"role":"assistant","content":"{number % 3}"}}]',
        )
        for number in range(40)
    ]
    write_segment(config.journal_dir, *traces)
    with Database(config.database_file, config.store) as db:
        plane = ControlPlane(config, Runtime("", control_port=1, control_token="t"), db)
        await plane.collect()
        await plane.runner.check()
        yield plane, db


async def verdict(raw: Raw) -> str:
    async with judged(raw) as (plane, _):
        return plane.runner.decisions[TASK].reason


async def calls_of_a_run(raw: Raw) -> int:
    """How often a run calls a teacher that refuses every call."""
    with LoopbackServer(lambda _: error(401, "no", code="invalid_api_key")) as teacher:
        raw["model_list"][0]["litellm_params"]["api_base"] = teacher.base_url
        async with judged(raw) as (plane, db):
            while plane.runner.busy:  # noqa: ASYNC110 - the run is a task of its own
                await asyncio.sleep(0.01)
            [ended] = ended_runs(db, TASK)
        assert ended.state is RunState.FAILED, ended.reason
        return len(teacher.requests)


def share_of(name: Split) -> Callable[[Raw], float]:
    """The share of groups that fall into a split, as a multiple of 0.05."""

    def seen(raw: Raw) -> float:
        shares = of_task(raw).split
        groups = [SplitGroup(name=str(n), began=float(n), can_judge=True) for n in range(5000)]
        result = list(split_groups(groups, shares).by_name.values())
        return round(20 * result.count(name) / len(result)) / 20

    return seen


# ---- synthetic inputs --------------------------------------------------------------------------


def planned(look: Callable[[BatchPlan], int]) -> Callable[[Raw], int]:
    """A number of the plan for a batch of synthetic inputs."""

    def seen(raw: Raw) -> int:
        rows = rows_of(LABELS, 20)
        aims = Aims(answers_of(rows), [row.target for row in rows])
        settings = of_task(raw).amplify
        return look(plan_batch(Random(1), rows, settings, aims=aims, so_far={}, avoid=[]))

    return seen


async def amplified_with(raw: Raw, teacher: str) -> int:
    """How many synthetic examples are kept."""
    folder = parse_config(raw).runs_dir
    settings = of_task(raw).amplify.model_dump()
    return len(kept(await amplified(folder, teacher, rows_of(LABELS, 20), **settings)))


async def examples_kept(raw: Raw) -> int:
    async with await start_teacher() as teacher:
        return await amplified_with(raw, teacher.base_url)


async def hardly_changed_kept(raw: Raw) -> int:
    """The same from a teacher that only adds a word to a real input."""
    sound, known = DemoTeacher(), user_text(rows_of(LABELS, 1)[0].messages)

    def answer(body: dict[str, Any]) -> Reply:
        offered = orjson.dumps({"inputs": [f"{known} Really."]}).decode()
        return Reply("inputs", offered, tool="SyntheticInputs") if "tools" in body else sound(body)

    async with server(answer) as teacher:
        return await amplified_with(raw, teacher.base_url)


async def temperatures_sent(raw: Raw) -> set[float]:
    sound, sent = DemoTeacher(), set()

    def answer(body: dict[str, Any]) -> Reply:
        if "tools" in body:
            sent.add(body["temperature"])
        return sound(body)

    async with server(answer) as teacher:
        await amplified_with(raw, teacher.base_url)
    return sent


async def teacher_calls_at_a_time(raw: Raw) -> int:
    sound = DemoTeacher()
    async with counting(lambda body: StandInCompletion(body, sound(body), "id", 0).whole()) as (
        url,
        most,
    ):
        await amplified_with(raw, f"{url}/v1")
        return most()


# ---- the table ---------------------------------------------------------------------------------

T = "task_defaults"
FEW = {f"{T}.amplify.target": 4, f"{T}.amplify.batch": 4}
ONE_BY_ONE = {**FEW, f"{T}.amplify.target": 1}
MANY = {f"{T}.amplify.target": 20, f"{T}.amplify.batch": 4}

DISTILLING: dict[str, Effect] = {
    "tasks": Effect(
        verdict,
        ({}, "collecting: 40 of 400 new teacher traces"),
        ({TASK: {"paused": True}}, "paused"),
    ),
    f"{T}.min_traces": Effect(is_due, (100, True), (101, False), {f"{T}.cooldown_s": 0}),
    f"{T}.paused": Effect(
        verdict, (False, "collecting: 40 of 400 new teacher traces"), (True, "paused")
    ),
    f"{T}.cooldown_s": Effect(is_due, (100, True), (101, False), {f"{T}.min_traces": 10}),
    **{
        f"{T}.split.{name}": Effect(
            share_of(name),
            (0.5, 0.5),
            (0.2, 0.2),
            lambda share: {f"{T}.split.{every}": (1 - share) / 2 for every in SPLITS},
        )
        for name in SPLITS
    },
    f"{T}.amplify.target": Effect(examples_kept, (0, 0), (7, 7)),
    f"{T}.amplify.batch": Effect(planned(lambda plan: len(plan.inputs)), (3, 3), (9, 9)),
    f"{T}.amplify.context": Effect(planned(lambda plan: len(plan.context)), (3, 3), (9, 9)),
    f"{T}.amplify.temperature": Effect(temperatures_sent, (0.25, {0.25}), (1.5, {1.5}), FEW),
    f"{T}.amplify.concurrency": Effect(teacher_calls_at_a_time, (1, 1), (3, 3), MANY),
    f"{T}.amplify.near_duplicate": Effect(hardly_changed_kept, (0.5, 0), (1.0, 1), ONE_BY_ONE),
    f"{T}.amplify.token_budget": Effect(
        calls_of_a_run, (0, 0), (1_000_000, 1), {f"{T}.min_traces": 10, f"{T}.gate.threshold": 0.5}
    ),
}
