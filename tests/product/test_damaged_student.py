"""The running product detects a student that turns wrong, and no other student.

The student is a real one, trained and served by mlx_lm. The teacher changes instead: for marked
texts its answer differs from what the student has learnt. For an audit that is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo.drive.driver import Product, SentRequest, loopback_teacher, send
from store.database.database import Database
from store.settings.teachers import Price
from tests.helpers.seeded_student import MODEL, seed_student
from tests.helpers.stored import comparisons_of_student
from tests.helpers.student_samples import items
from tests.helpers.teacher_server import LoopbackServer, Received, Reply, completion

pytestmark = [pytest.mark.rare, pytest.mark.slow, pytest.mark.timeout(300)]

ITEMS = items(400, seed=7)
KNOWN = {item.messages[-1]["content"]: item.target for item in ITEMS}
OTHERWISE = "Nobody knows."  # added to a text, for which the teacher then has another answer
MAX_AUDITS = 12  # until a student that is always wrong no longer answers, at most
TASKS = ("wrong", "repeated", "right")


def teacher_says(request: Received) -> Reply:
    """The answer that the student has learnt, or another valid one for a marked text."""
    text = request.json["messages"][-1]["content"]
    target = KNOWN.get(text.removesuffix(OTHERWISE).rstrip())
    if target is None:
        return completion("{}")
    return completion('{"thing": "door", "colour": "pink"}' if text.endswith(OTHERWISE) else target)


@pytest.fixture
def teacher() -> Iterator[LoopbackServer]:
    with LoopbackServer(teacher_says) as server:
        yield server


def settings(teacher: LoopbackServer) -> dict[str, Any]:
    return {
        "model_list": [loopback_teacher(MODEL, teacher.base_url, Price(1e-6, 1e-6))],
        "scheduler": {"due_seconds": 1, "health_seconds": 1},
        "task_defaults": {
            "min_traces": 5000,
            "gate": {"threshold": 0.9},
            "audit": {"first_share": 0.5, "last_share": 0.5},
        },
    }


def live(status: dict[str, Any]) -> bool:
    return bool(status["route"]["target"] == "student")


def demoted(status: dict[str, Any]) -> bool:
    return bool(status["route"]["reason"] == "demoted")


def audited(status: dict[str, Any]) -> bool:
    """Of some thirty answers, half of them audited."""
    audits = status["live"]["comparisons"].get("audit", {"n": 0})["n"]
    return bool(audits >= 5 and status["live"]["audits"]["owed"] == 0)


class Traffic:
    """Sends one tag's requests, and keeps the results."""

    def __init__(self, product: Product, task: str, texts: list[str]) -> None:
        self.product, self.task, self.texts = product, task, iter(texts)
        self.sent: list[SentRequest] = []

    async def some(self, count: int, system: str | None = None) -> list[SentRequest]:
        said = [next(self.texts) for _ in range(count)]
        prompt = system or ITEMS[0].messages[0]["content"]
        requests = [
            [{"role": "system", "content": prompt}, {"role": "user", "content": text}]
            for text in said
        ]
        async with self.product.client() as client:
            found = await send(client, requests, task=self.task, model=MODEL, concurrency=2)
        assert not [e.error for e in found if e.error]
        self.sent += found
        return found

    async def until_demoted(self) -> None:
        for _ in range(40):
            await self.some(4)
            status = await self.product.status(self.task)
            if status is not None and demoted(status):
                return
        raise AssertionError(f"{self.task}: not demoted after {len(self.sent)} requests")

    async def until_left_to_the_teacher(self) -> None:
        """Until the teacher answers by the route's list of inputs."""
        for _ in range(40):
            found = await self.some(4)
            if found[-1].reason == "teacher_input":
                assert found[-1].route == "teacher"
                return
            await asyncio.sleep(0.2)
        raise AssertionError(f"{self.task}: the student after {len(self.sent)} requests")


def kill_control_plane(product: Product) -> None:
    for process in psutil.Process(product.pid).children(recursive=True):
        if "distill.control" in " ".join(process.cmdline()):
            process.kill()
            return
    raise AssertionError("there is no control plane")


async def test_a_student_that_turns_wrong_is_demoted(
    sample_adapter: Path, teacher: LoopbackServer, tmp_path: Path
) -> None:
    product = Product(tmp_path, settings(teacher))
    runs = {task: seed_student(product.config, task, sample_adapter) for task in TASKS}
    plain = [item.messages[-1]["content"] for item in ITEMS]
    strange = [f"{text} {OTHERWISE}" for text in plain]
    async with product:
        right = Traffic(product, "right", plain)
        wrong = Traffic(product, "wrong", strange)
        repeated = Traffic(product, "repeated", [strange[0]] * 400)

        # the routes come up with the students
        for traffic in (right, wrong, repeated):
            await traffic.some(1)
            await product.wait(traffic.task, live, timeout_s=60)

        await wrong.until_demoted()
        await asyncio.sleep(1.0)  # every proxy follows within a second
        [after] = await wrong.some(1)
        assert (after.route, after.reason) == ("teacher", "demoted")

        # one input only, which says nothing of others; the control plane is killed meanwhile
        await repeated.some(2)
        kill_control_plane(product)
        await product.wait("right", live, timeout_s=60)
        await repeated.until_left_to_the_teacher()

        # another tag's student goes on, and an edited prompt never has its answers
        found = await right.some(30)
        assert {e.route for e in found} == {"student"}
        await product.wait("right", audited, timeout_s=60)
        [edited] = await right.some(1, system="Which thing is it? Answer with JSON, in capitals.")
        assert (edited.route, edited.reason) == ("teacher", "other_fingerprint")

    with Database(product.config.database_file, product.config.store) as db:
        for task, most in (("wrong", MAX_AUDITS), ("repeated", MAX_AUDITS)):
            audits = [c for c in comparisons_of_student(db, runs[task]) if c.kind == "audit"]
            assert 0 < len(audits) <= most
            assert not any(c.agrees for c in audits)
        audits = [c for c in comparisons_of_student(db, runs["right"]) if c.kind == "audit"]
        assert sum(c.agrees for c in audits) >= 0.8 * len(audits) > 0
