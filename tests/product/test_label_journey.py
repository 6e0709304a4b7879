"""A label student on its whole way, on a machine without a base: learned, live, killed, back."""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
from openai import AsyncOpenAI

from demo.drive.driver import Product, SentRequest, send
from demo.drive.ramp import is_live
from demo.journey.journey import JourneyPlan, product_config
from demo.tasks.tasks import TASKS
from demo.teacher.teacher import MODEL, DemoTeacher
from demo.teacher.wire import TeacherServer
from store.records import RunState

TASK = TASKS["review-sentiment"]
TRAFFIC = 300
FRESH = 40
WAIT_S = 120


def config(teacher_url: str) -> dict[str, Any]:
    plan = JourneyPlan(traces={TASK.name: TRAFFIC}, synthetic=30, threshold=0.7)
    found = product_config(plan, teacher_url)
    task = found["task_defaults"]
    task["train"]["base"] = ""
    task["evaluate"] |= {"teacher_recheck": 0}
    task["rollout"] = {"shares": [1.0], "min_comparisons": 0, "confirm": False}
    return found


def live(status: dict[str, Any]) -> bool:
    last = status["last_run"]
    if last and RunState(last["state"]).ended:
        assert last["state"] == "promoted", last["reason"]
    return is_live(status)


def server(product: Product) -> psutil.Process:
    """The process of all label students that serves (a run has one of its own)."""
    for process in psutil.Process(product.pid).children(recursive=True):
        if "distill.label.server" in process.cmdline():
            return process
    raise AssertionError("no server of label students")


async def ask(client: AsyncOpenAI, seed: str, count: int) -> list[SentRequest]:
    requests = map(TASK.messages, islice(TASK.texts(seed), count))
    done = await send(client, requests, task=TASK.name, model=MODEL, concurrency=4)
    assert not [e.error for e in done if e.error is not None]
    return done


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_labels_are_taken_over_without_a_base_and_survive_a_kill(tmp_path: Path) -> None:
    async with (
        TeacherServer(DemoTeacher(), models=[MODEL]) as teacher,
        Product(tmp_path, config(teacher.base_url)) as ours,
        ours.client() as client,
    ):
        await ask(client, "traffic", TRAFFIC)
        status = await ours.wait(TASK.name, live, timeout_s=WAIT_S)
        label, lora = status["race"]
        assert (label["kind"], label["won"], lora["won"]) == ("label", True, False)
        assert "train.base" in lora["reason"]
        assert status["certificate"]["race"] == status["race"]
        assert status["examples"].get("synthetic") is None
        assert set(teacher.counts) == {f"answers/{TASK.name}"}, "the teacher was paid for more"
        first = status["route"]["base_url"]

        await asyncio.sleep(1.0)  # the proxy reads a new route within a second
        fresh = await ask(client, "fresh", FRESH)
        served = [e.route == "student" for e in fresh]
        assert sum(served) >= FRESH * 0.5
        right = [
            e.answer == TASK.answer(t)
            for e, t in zip(fresh, islice(TASK.texts("fresh"), FRESH), strict=True)
        ]
        assert sum(right) >= FRESH * 0.8

        strange = [
            TASK.messages("")[0],
            {"role": "user", "content": "¿Dónde está la biblioteca? XQZ-19 ⟦∮⟧"},
        ]
        answer = await client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=strange,
            extra_headers={"X-Understudy-Task": TASK.name},  # type: ignore[arg-type]
        )
        assert answer.headers["x-understudy-route"] == "fallback"
        assert answer.headers["x-understudy-reason"] == "student_unfamiliar"

        server(ours).kill()
        await ask(client, "killed", FRESH)  # clients notice nothing
        await ours.wait(
            TASK.name, lambda s: live(s) and s["route"]["base_url"] != first, timeout_s=WAIT_S
        )
        await asyncio.sleep(1.0)
        assert any(e.route == "student" for e in await ask(client, "back", FRESH))
