"""The effects of all settings of a task: the table is at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import orjson
import yaml
from aiohttp import web
from amplifying import amplified, kept, server
from demo_rows import LABELS, rows_of
from effects import TASK, Effect, Raw
from gate_samples import judge
from gate_samples import row as evaluated
from gate_samples import rows as evaluated_rows
from samples import a_trace, an_evaluation, an_example, write_segment
from student_samples import BASE
from student_samples import rows as student_rows
from teacher_server import LoopbackServer, error

from demo.teacher import DemoTeacher, start_teacher
from demo.wire import Completion, Reply
from distill.control import ControlPlane
from distill.dataset import write_rows
from distill.due import due
from distill.evaluate import evaluate
from distill.pipeline import distil
from distill.policy import user_text
from distill.run import SPLITS, Parts, Run
from distill.scorers import Scorer, choose_scorer
from distill.split import split_of
from distill.stage_evaluation import evaluate_student
from distill.stage_training import Trained, train_best
from distill.steering import Aims, BatchPlan, plan_batch
from distill.student_server import StudentServer
from distill.teacher_client import TeacherClient
from distill.train import training_config
from store import records
from store.config import TaskSettings, parse_config
from store.database import Database
from store.errors import StudentError, TrainingError
from store.files import write_atomically
from store.models import Reason, RunEvent, RunState, Split, TeacherCall, new_id
from store.runtime import Runtime

NOWHERE = "/nowhere/at/all"


def of_task(raw: Raw) -> TaskSettings:
    return parse_config(raw).task(TASK)


def untold(*_: object) -> None:
    """Progress that nobody wants to know."""


# ---- when a task gets a run --------------------------------------------------------------------


def is_due(raw: Raw) -> bool:
    """With 100 new traces, 100 seconds after the last run."""
    last = RunEvent(run_id="r", seq=9, task=TASK, state=RunState.REJECTED, at=1000.0)
    return due(settings=of_task(raw), new_traces=100, ended=[last], now=1100.0).due


@asynccontextmanager
async def judged(raw: Raw) -> AsyncIterator[tuple[ControlPlane, Database]]:
    """A control plane that has 40 traces of a task, and has looked whether it is due."""
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
        return plane.runner.verdicts[TASK].reason


async def calls_of_a_run(raw: Raw) -> int:
    """How often a run calls a teacher that refuses every call."""
    with LoopbackServer(lambda _: error(401, "no", code="invalid_api_key")) as teacher:
        raw["model_list"][0]["litellm_params"]["api_base"] = teacher.base_url
        async with judged(raw) as (plane, db):
            while plane.runner.busy:  # noqa: ASYNC110 - the run is a task of its own
                await asyncio.sleep(0.01)
            [ended] = records.ended_runs(db, TASK)
        assert ended.state is RunState.FAILED, ended.reason
        return len(teacher.requests)


def share_of(name: Split) -> Callable[[Raw], float]:
    """The share of inputs that fall into a split, as a multiple of 0.05."""

    def seen(raw: Raw) -> float:
        shares = of_task(raw).split
        found = [split_of(str(number), shares) for number in range(5000)]
        return round(20 * found.count(name) / len(found)) / 20

    return seen


# ---- synthetic inputs --------------------------------------------------------------------------


def planned(look: Callable[[BatchPlan], int]) -> Callable[[Raw], int]:
    """A number of the plan for a batch of synthetic inputs."""

    def seen(raw: Raw) -> int:
        rows = rows_of(LABELS, 20)
        aims = Aims([row.target for row in rows])
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
    """The same from a teacher that has nothing to offer but a real input with a word added."""
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


@asynccontextmanager
async def counting(
    answer: Callable[[dict[str, Any]], dict[str, Any]],
) -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """A server's URL, and how many requests it had to work on at a time, at most."""
    under_way = most = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return web.json_response(answer(await request.json()))

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", lambda: most
    finally:
        await runner.cleanup()


async def teacher_calls_at_a_time(raw: Raw) -> int:
    sound = DemoTeacher()
    async with counting(lambda body: Completion(body, sound(body), "id", 0).whole()) as (url, most):
        await amplified_with(raw, f"{url}/v1")
        return most()


# ---- training ----------------------------------------------------------------------------------


def configured(*keys: str) -> Callable[[Raw], Any]:
    """What mlx_lm is told in its own config, for 100 rows; None for what it is not told."""

    def seen(raw: Raw) -> Any:
        found: Any = training_config(
            of_task(raw).train, base=BASE, data=Path("data"), adapter=Path("adapter"), rows=100
        )
        for key in keys:
            found = found.get(key)
        return found

    return seen


async def trained_files(raw: Raw, pattern: str) -> list[Path]:
    """What the training stage leaves that is called so, also when no training comes to its end."""
    config = parse_config(raw)
    run = Run(new_id(), TASK, config.task(TASK), 0.0, config.runs_dir / "run")
    real, examples = student_rows(4, seed=1), [an_example(run.run_id)]
    try:
        await train_best(run, real, real, examples, untold)
    except* TrainingError:
        pass
    return sorted(run.folder.glob(pattern))


async def trainings_begun(raw: Raw) -> list[str]:
    return [file.parent.name for file in await trained_files(raw, "*/config.yaml")]


async def bases_trained(raw: Raw) -> set[str]:
    files = await trained_files(raw, "*/config.yaml")
    return {yaml.safe_load(file.read_text(encoding="utf-8"))["model"] for file in files}


async def trainings_ended(raw: Raw) -> list[str]:
    return [file.parent.name for file in await trained_files(raw, "*/report.json")]


# ---- evaluation and gate -----------------------------------------------------------------------


def chosen(look: Callable[[Scorer], Any], answers: list[str]) -> Callable[[Raw], Any]:
    """What the scorer for these answers is like."""
    return lambda raw: look(choose_scorer(answers, of_task(raw).evaluate))


def student_says(text: str) -> dict[str, Any]:
    """An answer in mlx_lm.server's shape."""
    choice = {
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": [{"id": 1, "logprob": -0.1}]},
    }
    return {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}


async def student_requests_at_a_time(raw: Raw) -> int:
    async with counting(lambda _: student_says("{}")) as (url, most):
        await evaluate(
            url,
            student_rows(12, seed=1),
            run_id="run",
            scorer=Scorer("json", 1.0, "json", ""),
            output="json",
            max_tokens=9,
            settings=of_task(raw).evaluate,
            timeout_s=60,
            progress=untold,
        )
        return most()


def no_teacher(model: str, run: Run, record: Callable[[TeacherCall], None]) -> TeacherClient:
    raise AssertionError(f"run {run.run_id} asks for {model}")


async def rows_to_evaluate(raw: Raw) -> set[float]:
    """How many of 5 calibration rows and 8 held-out rows a student is to answer."""
    config, totals = parse_config(raw), set()
    run = Run(new_id(), TASK, config.task(TASK), 0.0, config.runs_dir / "run")
    split = {"calibration": student_rows(5, seed=1), "heldout": student_rows(8, seed=2)}
    scorer = choose_scorer(["{}"], run.settings.evaluate)

    def tell(stage: str, done: float, total: float, note: str) -> None:
        totals.add(total)

    with Database(config.database_file, config.store) as db:
        parts = Parts(db=db, clock=lambda: 0.0, teacher=no_teacher)
        with suppress(StudentError):  # it is given no time to start
            await evaluate_student(run, parts, split, Trained(Path(BASE), "real"), scorer, tell)
    return totals


def certified(raw: Raw) -> bool:
    """A student whose 80 served answers out of 100 agree with the teacher's, but for two."""
    served, unserved = evaluated_rows(78, 80), [evaluated(False, fault=Reason.STUDENT_CUT_OFF)] * 20
    return judge([*served, *unserved], settings=of_task(raw).gate).passed


# ---- the student -------------------------------------------------------------------------------


async def student_is_waited_for(raw: Raw) -> bool:
    """Whether a student that cannot start gets the time to say so itself."""
    config = parse_config(raw)
    settings = config.task(TASK)
    student = StudentServer(NOWHERE, Path(BASE), settings.student, config.data_dir)
    try:
        await student.start()
    except StudentError as failure:
        return "it said last" in str(failure)
    raise AssertionError("a student started from nothing")


async def routes_time_limit(raw: Raw) -> float | None:
    """Of the route that a whole run leads to, whose student has answered everything well."""
    config = parse_config(raw)
    run = Run(new_id(), TASK, config.task(TASK), 0.0, config.runs_dir / "run")
    rows = [r for n, name in enumerate(SPLITS) for r in student_rows(20, seed=n, split=name)]
    answers = [
        an_evaluation(run.run_id, input_hash=row.input_hash, split=row.split)
        for row in rows
        if row.split != "train"
    ]
    write_rows(run.folder / "rows.jsonl", rows)
    write_atomically(run.folder / "evaluations.jsonl", b"".join(map(records.as_line, answers)))
    with Database(config.database_file, config.store) as db:
        parts = Parts(db=db, clock=lambda: 0.0, teacher=no_teacher)
        ended = await distil(run, parts, untold)
        assert ended.state is RunState.PROMOTED, ended.reason
        route = records.latest_promotions(db)[TASK].route
    return route.timeout_s if route is not None else None


# ---- the table ---------------------------------------------------------------------------------

T = "task_defaults"
FEW = {f"{T}.amplify.target": 4, f"{T}.amplify.batch": 4}
ONE_BY_ONE = {**FEW, f"{T}.amplify.target": 1}
MANY = {f"{T}.amplify.target": 20, f"{T}.amplify.batch": 4}
CUT_SHORT = {f"{T}.train.base": BASE, f"{T}.train.timeout_s": 0.5, f"{T}.train.parallel": 2}
SHORTEST = {f"{T}.train.base": BASE, f"{T}.train.iterations": 1, f"{T}.train.compare": False}
LAX = {f"{T}.gate.threshold": 0.9}
LABELLED, WRITTEN = (
    ["yes", "no"] * 10,
    ["a long answer of more than sixty-four characters " * 2] * 9,
)

DISTILLING: dict[str, Effect] = {
    "tasks": Effect(
        verdict,
        ({}, "collecting: 40 of 200 new teacher traces"),
        ({TASK: {"paused": True}}, "paused"),
    ),
    f"{T}.min_traces": Effect(is_due, (100, True), (101, False), {f"{T}.cooldown_s": 0}),
    f"{T}.paused": Effect(
        verdict, (False, "collecting: 40 of 200 new teacher traces"), (True, "paused")
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
    f"{T}.amplify.batch": Effect(planned(lambda plan: len(plan.wanted)), (3, 3), (9, 9)),
    f"{T}.amplify.context": Effect(planned(lambda plan: len(plan.context)), (3, 3), (9, 9)),
    f"{T}.amplify.temperature": Effect(temperatures_sent, (0.25, {0.25}), (1.5, {1.5}), FEW),
    f"{T}.amplify.concurrency": Effect(teacher_calls_at_a_time, (1, 1), (3, 3), MANY),
    f"{T}.amplify.near_duplicate": Effect(hardly_changed_kept, (0.5, 0), (1.0, 1), ONE_BY_ONE),
    f"{T}.amplify.token_budget": Effect(
        calls_of_a_run, (0, 0), (1_000_000, 1), {f"{T}.min_traces": 10, f"{T}.gate.threshold": 0.5}
    ),
    f"{T}.train.base": Effect(
        bases_trained, (BASE, {BASE}), (NOWHERE, {NOWHERE}), CUT_SHORT, slow=True
    ),
    f"{T}.train.rank": Effect(configured("lora_parameters", "rank"), (8, 8), (64, 64)),
    f"{T}.train.scale": Effect(configured("lora_parameters", "scale"), (2.0, 2.0), (10.0, 10.0)),
    f"{T}.train.dropout": Effect(configured("lora_parameters", "dropout"), (0.0, 0.0), (0.1, 0.1)),
    f"{T}.train.layers": Effect(configured("num_layers"), (-1, -1), (2, 2)),
    f"{T}.train.keys": Effect(
        configured("lora_parameters", "keys"),
        (None, None),
        (["self_attn.q_proj"], ["self_attn.q_proj"]),
    ),
    f"{T}.train.learning_rate": Effect(configured("learning_rate"), (1e-3, 1e-3), (1e-4, 1e-4)),
    f"{T}.train.warmup": Effect(configured("lr_schedule", "warmup"), (0.0, 0), (0.5, 50)),
    f"{T}.train.batch_size": Effect(configured("iters"), (4, 100), (8, 50)),
    f"{T}.train.epochs": Effect(configured("iters"), (4, 100), (8, 200)),
    f"{T}.train.iterations": Effect(configured("iters"), (None, 100), (7, 7)),
    f"{T}.train.max_iterations": Effect(configured("iters"), (2000, 100), (9, 9)),
    f"{T}.train.validations": Effect(configured("steps_per_eval"), (10, 10), (2, 50)),
    f"{T}.train.max_seq_length": Effect(configured("max_seq_length"), (64, 64), (512, 512)),
    f"{T}.train.mask_prompt": Effect(configured("mask_prompt"), (True, True), (False, False)),
    f"{T}.train.compare": Effect(
        trainings_begun,
        (True, ["train-real", "train-real-synthetic"]),
        (False, ["train-real-synthetic"]),
        CUT_SHORT,
        slow=True,
    ),
    f"{T}.train.parallel": Effect(
        trainings_begun,
        (1, ["train-real-synthetic"]),
        (2, ["train-real", "train-real-synthetic"]),
        CUT_SHORT,
        slow=True,
    ),
    f"{T}.train.seed": Effect(configured("seed"), (0, 0), (7, 7)),
    f"{T}.train.timeout_s": Effect(
        trainings_ended, (0.01, []), (600, ["train-real-synthetic"]), SHORTEST, slow=True
    ),
    f"{T}.evaluate.scorer": Effect(
        chosen(lambda scorer: scorer.name, LABELLED), ("auto", "exact"), ("text", "text")
    ),
    f"{T}.evaluate.agree_at": Effect(
        chosen(lambda scorer: scorer.agrees(0.7), WRITTEN), (None, False), (0.6, True)
    ),
    f"{T}.evaluate.max_rows": Effect(
        rows_to_evaluate, (3, {6}), (7, {12}), {f"{T}.student.start_timeout_s": 0.01}, slow=True
    ),
    f"{T}.evaluate.concurrency": Effect(student_requests_at_a_time, (1, 1), (3, 3)),
    f"{T}.gate.threshold": Effect(certified, (0.9, True), (0.95, False)),
    f"{T}.gate.confidence": Effect(certified, (0.95, True), (0.999, False), LAX),
    f"{T}.gate.min_coverage": Effect(certified, (0.8, True), (0.81, False), LAX),
    f"{T}.student.request_timeout_s": Effect(
        routes_time_limit,
        (10, 10),
        (3.5, 3.5),
        {**SHORTEST, f"{T}.amplify.target": 0, f"{T}.gate.threshold": 0.5},
        slow=True,
    ),
    f"{T}.student.start_timeout_s": Effect(
        student_is_waited_for, (0.01, False), (120, True), slow=True
    ),
}
