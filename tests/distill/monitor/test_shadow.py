"""The shadow: the student answers what the teacher has answered, with the lowest priority."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from distill.monitor.shadow import MAX_WAIT_S
from store.records import (
    Reason,
    Trace,
)
from tests.helpers.live_scene import Scene, answering, right, spelled, wrong
from tests.helpers.teacher_server import DROP, completion, error


@pytest.fixture
async def scene(tmp_path: Path):
    async with Scene(tmp_path, rollout={"shadow_share": 1.0, "min_comparisons": 1000}) as scene:
        yield scene


def in_shadow(scene: Scene, text: str, task: str = "triage", **changes: Any) -> Trace:
    return scene.request(text, task, reason=Reason.SHADOW, **changes)


@pytest.mark.slow
async def test_the_students_answer_is_compared_with_the_teachers(scene: Scene) -> None:
    student = scene.promote(step="shadow")
    scene.student.answer = answering(lambda t: right(t) if t == "one" else wrong(t))
    await scene.settle(in_shadow(scene, "one"), in_shadow(scene, "two"))
    comparisons = {c.student_output: c for c in scene.comparisons(student)}
    assert {text: c.agrees for text, c in comparisons.items()} == {
        right("one"): True,
        wrong("two"): False,
    }
    assert {(c.kind, c.servable, c.scorer) for c in comparisons.values()} == {
        ("shadow", True, "exact")
    }
    assert not scene.teacher.requests


@pytest.mark.parametrize(
    ("reply", "fault", "bad"),
    [
        (completion(right("one"), finish_reason="length"), Reason.STUDENT_CUT_OFF, 1),
        (completion(""), Reason.STUDENT_MALFORMED, 1),
        (error(500, "no"), Reason.STUDENT_ERROR, 1),
        (completion(right("one")).with_headers(x="y"), None, 0),
        (DROP, Reason.STUDENT_DOWN, 1),
    ],
)
@pytest.mark.slow
async def test_an_answer_that_the_proxy_would_not_serve_is_not_servable(
    scene: Scene, reply, fault: Reason | None, bad: int
) -> None:
    student = scene.promote(step="shadow")
    scene.student.answer = lambda _: reply
    await scene.settle(in_shadow(scene, "one"))
    [comparison] = scene.comparisons(student)
    assert (comparison.fault, comparison.servable, comparison.agrees) == (
        fault,
        fault is None,
        fault is None,
    )
    assert scene.state().suspicion["faults"].bad == bad
    assert scene.state().suspicion["disagreement"].n == (fault is None)


@pytest.mark.slow
async def test_the_students_request_keeps_the_clients_limits(scene: Scene) -> None:
    scene.promote(step="shadow", max_tokens=64)
    params = (
        '{"max_tokens":9,"stop":"END","model":"gpt-4o",'
        '"response_format":{"type":"json_object"},"temperature":1}'
    )
    await scene.settle(in_shadow(scene, "one", request_params=params))
    [asked] = scene.student.requests
    assert (asked.json["max_tokens"], asked.json["stop"]) == (9, ["END"])
    assert asked.json["temperature"] == 0
    assert scene.state().comparisons["shadow"].servable == 0  # not JSON


@pytest.mark.slow
async def test_only_requests_that_the_certificate_covers_are_asked(scene: Scene) -> None:
    student = scene.promote(step="canary")
    await scene.settle(
        in_shadow(scene, "shadow"),
        scene.request("canary", reason=Reason.NOT_IN_SHARE),
        scene.request("another prompt", reason=Reason.OTHER_FINGERPRINT),
        in_shadow(scene, "opted out", content="none"),
        in_shadow(scene, "no chat", operation_name="text_completion"),
        scene.request("with an error", reason=Reason.SHADOW, status_code=500, outcome="error"),
        scene.request("not finished", reason=Reason.SHADOW, finish_reasons=["length"]),
        in_shadow(scene, "of another task", task="other"),
        scene.fell_back("unsure", student, Reason.STUDENT_UNSURE),
    )
    asked = {r.json["messages"][-1]["content"] for r in scene.student.requests}
    assert asked == {"shadow", "canary"}


@pytest.mark.slow
async def test_old_requests_are_shed_and_the_newest_is_asked_first(scene: Scene) -> None:
    scene.promote(step="shadow")
    scene.student.answer = lambda r: answering(right)(r).slow(0.3)
    old = [in_shadow(scene, f"old {n}") for n in range(20)]
    await scene.tick(*old)
    await asyncio.sleep(0.1)
    scene.now += MAX_WAIT_S
    await scene.settle(in_shadow(scene, "new 1"), in_shadow(scene, "new 2"))
    asked = [r.json["messages"][-1]["content"] for r in scene.student.requests]
    assert asked == [spelled(text) for text in ("old 19", "new 2", "new 1")]
    assert scene.state().shed == 19


@pytest.mark.slow
async def test_the_shadow_pauses_for_a_slow_student(scene: Scene) -> None:
    student = scene.promote(step="shadow", timeout_s=1.2)
    scene.student.answer = lambda r: answering(right)(r).slow(0.9)
    await scene.settle(*(in_shadow(scene, f"text {n}") for n in range(3)))
    assert len(scene.student.requests) == 1
    assert "slow" in scene.state().waits_for
    await scene.settle()
    assert len(scene.student.requests) == 1

    scene.now += 3
    scene.student.answer = answering(right)
    await scene.settle()
    assert scene.state().waits_for == ""
    assert len(scene.comparisons(student)) == 3


@pytest.mark.slow
async def test_a_student_that_is_down_is_not_asked(scene: Scene) -> None:
    scene.promote(step="shadow")
    scene.ready.clear()
    await scene.settle(in_shadow(scene, "one"))
    assert not scene.student.requests
    assert scene.state().suspicion["faults"].n == 0
    assert "not up" in scene.state().waits_for


@pytest.mark.slow
async def test_only_the_shadow_share_of_the_requests_is_asked(tmp_path: Path) -> None:
    async with Scene(tmp_path, rollout={"shadow_share": 0.25, "min_comparisons": 1000}) as scene:
        student = scene.promote(step="shadow")
        await scene.settle(*(in_shadow(scene, f"text {n}") for n in range(200)))
        assert 25 < len(scene.comparisons(student)) < 80
