"""The whole product, from a client's traffic to a promoted student, with its parts killed.

One journey, because each of its steps needs the ones before. The teacher is the demo's with labels
that are learned faster, behind real HTTP; the student is trained by mlx_lm and served by
mlx_lm.server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo.drive.driver import Product, SentRequest, send
from demo.drive.ramp import is_live
from demo.journey.journey import JourneyPlan, product_config
from demo.tasks.tasks import TASKS
from demo.teacher.teacher import MODEL, DemoTeacher, last_user_text
from demo.teacher.wire import Reply, TeacherServer
from store.database.database import Database
from store.database.runs import ended_runs
from store.database.traces import task_counts
from store.files.kept import KEPT_FOLDER
from store.records import RunState
from tests.helpers.stored import examples_of_run

TASK = TASKS["review-sentiment"]
TRAFFIC = 200
SYNTHETIC = 30
FRESH = 60
WAIT_S = 420
ANSWERED = f"answers/{TASK.name}"


def label(text: str) -> str:
    """What a review begins with. Its sentiment would take the tiny base several times as long."""
    return "thing" if text.split(maxsplit=1)[0] in ("The", "It", "A", "An", "This") else "person"


class LabellingTeacher(DemoTeacher):
    """The stand-in teacher, with other labels for reviews."""

    def __call__(self, body: dict[str, Any]) -> Reply:
        reply = super().__call__(body)
        if reply.kind != ANSWERED:
            return reply
        return Reply(ANSWERED, label(last_user_text(body["messages"])))


def config(teacher_url: str) -> dict[str, Any]:
    """The demo's settings, smaller: this is about the way, not about how good the student gets."""
    plan = JourneyPlan(traces={TASK.name: TRAFFIC}, synthetic=SYNTHETIC, threshold=0.7)
    found = product_config(plan, teacher_url)
    task = found["task_defaults"]
    task["gate"] |= {"min_coverage": 0.3, "confidence": 0.9}
    task["train"] |= {"validations": 4, "compare": False, "batch_size": 2}
    found["tasks"][TASK.name] |= {"train": {"epochs": 3}, "student": "lora"}
    task["evaluate"] |= {"teacher_recheck": 0}
    task["rollout"] = {
        "shares": [1.0],
        "min_comparisons": 0,
        "confirm": False,
    }  # the steps have a test of their own
    return found


def texts(seed: str, count: int) -> list[str]:
    return list(islice(TASK.texts(seed), count))


def child(product: Product, *words: str) -> psutil.Process:
    """The product's process whose command line has all these words."""
    for process in psutil.Process(product.pid).children(recursive=True):
        line = " ".join(process.cmdline())
        if all(word in line for word in words):
            return process
    raise AssertionError(f"no process with {words}")


def errors(exchanges: list[SentRequest]) -> list[str]:
    return [e.error for e in exchanges if e.error is not None]


async def ask(product: Product, seed: str, count: int, **options: Any) -> list[SentRequest]:
    async with product.client() as client:
        requests: Iterator[Any] = map(TASK.messages, texts(seed, count))
        return await send(client, requests, task=TASK.name, model=MODEL, **options)


def promoted(status: dict[str, Any]) -> bool:
    last = status["last_run"]
    if last and RunState(last["state"]).ended:
        assert last["state"] == "promoted", last["reason"]
    return is_live(status)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_from_traffic_to_a_student_whatever_is_killed(tmp_path: Path) -> None:
    sent = 0
    async with (
        TeacherServer(LabellingTeacher(), models=[MODEL]) as teacher,
        Product(tmp_path, config(teacher.base_url)) as ours,
    ):
        # traffic, with the control plane killed in the middle of it
        assert not errors(await ask(ours, "traffic", TRAFFIC // 2))
        child(ours, "distill.control").kill()
        both = texts("traffic", TRAFFIC)[TRAFFIC // 2 :]
        async with ours.client() as client:
            rest = await send(client, map(TASK.messages, both), task=TASK.name, model=MODEL)
        assert not errors(rest)
        assert {e.route for e in rest} == {"teacher"}
        sent += TRAFFIC

        # the run, with the control plane killed in the middle of training
        await ours.wait(
            TASK.name,
            lambda s: (
                bool(s["stage"]) and s["stage"]["stage"] == "train" and s["stage"]["done"] > 0
            ),
            timeout_s=WAIT_S,
            every_s=0.1,
        )
        paid = dict(teacher.counts)
        trainer = child(ours, "distill.train.trainer")
        child(ours, "distill.control").kill()
        await asyncio.to_thread(psutil.wait_procs, [trainer], 10)
        assert not trainer.is_running(), "the training outlived its parent"
        before = await ask(ours, "meanwhile", 5)
        assert not errors(before)
        sent += 5
        status = await ours.wait(TASK.name, promoted, timeout_s=WAIT_S)
        run = status["last_run"]
        assert teacher.counts[ANSWERED] == paid[ANSWERED] + 5, "an answer was paid for twice"
        assert status["examples"]["synthetic"]["kept"] == SYNTHETIC
        certified_at = status["route"]["base_url"]
        certificate = status["certificate"]
        assert certificate["passed"]
        assert certificate["lower_bound"] >= certificate["threshold"]
        assert run["detail"]["collected"]["rows"]["heldout"] >= certificate["n"]

        # fresh traffic: the student answers, and clients do not notice when it is killed
        await asyncio.sleep(1.0)
        fresh = await ask(ours, "fresh", FRESH, concurrency=2)
        assert not errors(fresh)
        assert sum(e.route == "student" for e in fresh) >= FRESH * 0.2
        assert all(
            e.answer == label(t)
            for e, t in zip(fresh, texts("fresh", FRESH), strict=True)
            if e.route != "student"
        )
        server = child(ours, "distill.train.mlx_launch", "--adapter-path")

        async def kill_soon() -> None:
            await asyncio.sleep(0.3)
            server.kill()

        killed, _ = await asyncio.gather(ask(ours, "killed", FRESH, concurrency=2), kill_soon())
        assert not errors(killed)
        assert any(e.route == "fallback" for e in killed) or killed[-1].route == "teacher"
        sent += 2 * FRESH
        await ours.wait(
            TASK.name,
            lambda s: promoted(s) and s["route"]["base_url"] != certified_at,
            timeout_s=60,
        )
        assert child(ours, "distill.train.mlx_launch", "--adapter-path").pid != server.pid
        await asyncio.sleep(1.0)

        # another prompt was never certified
        async with ours.client() as client:
            other = await client.chat.completions.with_raw_response.create(
                model=MODEL,
                messages=[
                    {"role": "system", "content": "Answer in French."},
                    {"role": "user", "content": "x"},
                ],
                extra_headers={"X-Understudy-Task": TASK.name},
            )
            assert other.headers["x-understudy-reason"] == "other_fingerprint"

            # a student's answer as a stream
            streamed = await _stream(client, texts("streamed", 12))
        assert "student" in streamed
        sent += 1 + 12
        family = [psutil.Process(ours.pid), *psutil.Process(ours.pid).children(recursive=True)]

    _, alive = await asyncio.to_thread(psutil.wait_procs, family, 10)
    assert not alive, "something outlived `understudy serve`"
    _check_store(ours, sent)


async def _stream(client: Any, inputs: list[str]) -> set[str]:
    """Streams answers and returns the routes they took. Each is put together from its chunks."""
    routes = set()
    for text in inputs:
        raw = await client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=TASK.messages(text),
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"X-Understudy-Task": TASK.name},
        )
        routes.add(raw.headers["x-understudy-route"])
        chunks = [chunk async for chunk in raw.parse()]
        answer = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert answer in ("thing", "person")
        assert chunks[-1].usage.completion_tokens > 0
    return routes


def _left_in_journal(product: Product) -> dict[str, int]:
    """The lines that were journalled and not collected, by file."""
    files = [path for path in product.config.journal_dir.rglob("*") if path.is_file()]
    left = [path for path in files if path.parent.name != KEPT_FOLDER]
    return {path.name: path.read_bytes().count(b"\n") for path in left}


def _check_store(product: Product, sent: int) -> None:
    """Every request is stored once, and no held-out row or student answer was learned from."""
    left = _left_in_journal(product)
    with Database(product.config.database_file, product.config.store) as db:
        stored = sum(task_counts(db).values())
        assert stored == sent, f"{stored} of {sent} stored; in the journal: {left or 'none'}"
        run_id = ended_runs(db, TASK.name)[-1].run_id
        examples = examples_of_run(db, run_id)
        heldout = {e.input_hash for e in examples if e.split != "train"}
        learned = [e for e in examples if e.split == "train" and e.status == "kept"]
        assert learned
        assert not heldout & {e.input_hash for e in learned}
        for example in learned:
            if example.source_trace_id:
                [trace] = db.query("exchange_by_id", trace_id=example.source_trace_id)
                assert trace["served_by"] == "teacher"
                assert trace["task"] == TASK.name
