"""Faults of a serving student: how many are tolerated, and what counts as one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from store.jsontext import to_json
from store.records import Reason
from tests.helpers.live_scene import EVERY_AUDIT, Scene
from tests.helpers.teacher_server import error


@pytest.fixture
async def scene(tmp_path: Path):
    async with Scene(tmp_path, audit=EVERY_AUDIT, rollout={"min_comparisons": 1000}) as scene:
        yield scene


@pytest.mark.parametrize(
    ("rate", "at_most"), [(1.0, 20), (0.05, 3000)], ids=["every answer", "one in twenty"]
)
@pytest.mark.parametrize(
    "fault", [Reason.STUDENT_ERROR, Reason.STUDENT_SLOW, Reason.STUDENT_MALFORMED]
)
@pytest.mark.slow
async def test_a_faulty_student_is_demoted(
    scene: Scene, rate: float, at_most: int, fault: Reason
) -> None:
    student = scene.promote()
    scene.teacher.answer = lambda _: error(401, "no")  # no audits, so that only faults count
    await scene.settle()
    draw = random.Random(3)
    seen = 0
    while scene.promotion().target == "student" and seen < at_most:
        batch = [
            scene.fell_back(f"a {seen + n}", student, fault)
            if draw.random() < rate
            else scene.served("b", student)
            for n in range(min(100, at_most))
        ]
        seen += len(batch)
        await scene.tick(*batch)
    assert scene.promotion().state == "demoted"
    assert "requests to the student failed" in scene.promotion().reason
    assert scene.route().reason == Reason.DEMOTED


@pytest.mark.slow
async def test_one_conversation_that_breaks_the_form_counts_once(scene: Scene) -> None:
    student = scene.promote()
    scene.teacher.answer = lambda _: error(401, "no")
    turns = [{"role": "user", "content": "a text that no student can answer"}]
    requests = []
    for number in range(50):
        messages = to_json([*turns, {"role": "user", "content": f"again {number}"}]).decode()
        broken = scene.fell_back("a", student, Reason.STUDENT_MALFORMED, input_messages=messages)
        requests += [broken, scene.served(f"b {number}", student)]
    await scene.settle()
    await scene.tick(*requests)
    faults = scene.state().suspicion["faults"]
    assert (faults.n, faults.bad) == (51, 1)
    assert scene.promotion().target == "student"


@pytest.mark.slow
async def test_tolerated_faults_do_not_demote(scene: Scene) -> None:
    student = scene.promote()
    scene.teacher.answer = lambda _: error(401, "no")
    for _ in range(30):
        unsure = [scene.fell_back("c", student, Reason.STUDENT_UNSURE) for _ in range(39)]
        served = [scene.served("b", student) for _ in range(60)]
        await scene.tick(scene.fell_back("a", student, Reason.STUDENT_ERROR), *served, *unsure)
    assert scene.promotion().target == "student"
    assert (scene.state().suspicion["faults"].n, scene.state().suspicion["faults"].bad) == (
        3000,
        30,
    )


@pytest.mark.slow
async def test_one_crash_counts_as_one_fault(scene: Scene) -> None:
    """However many requests fail until the supervisor restarts it."""
    student = scene.promote()
    await scene.settle(*(scene.served(f"a {n}", student) for n in range(5)))
    down = [scene.fell_back(f"b {n}", student, Reason.STUDENT_DOWN) for n in range(50)]
    await scene.settle(*down[:20])
    await scene.settle(*down[20:])
    await scene.settle(*(scene.served(f"c {n}", student) for n in range(5)))
    assert scene.promotion().target == "student"
    assert scene.state().suspicion["faults"].bad == 1

    await scene.monitor.stop()  # the same after a restart
    scene.monitor = scene.new_monitor()
    await scene.settle()
    assert scene.state().suspicion["faults"].bad == 1


@pytest.mark.slow
async def test_a_student_that_crashes_repeatedly_is_demoted(scene: Scene) -> None:
    student = scene.promote()
    deaths = 0
    while scene.promotion().target == "student" and deaths < 20:
        deaths += 1
        await scene.settle(
            *(scene.served(f"a {deaths} {n}", student) for n in range(3)),
            *(scene.fell_back(f"b {deaths} {n}", student, Reason.STUDENT_DOWN) for n in range(8)),
        )
        scene.now += 30
    assert scene.promotion().state == "demoted"
    assert 2 < deaths < 15
