"""Audits: the teacher is asked for each sampled trace once, also across faults and restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from distill.monitor.audits import FIRST_BACKOFF_S, MAX_PENDING_S
from distill.monitor.sampling import Sampler
from tests.helpers.live_scene import EVERY_AUDIT, Scene, answering, right, until, wrong
from tests.helpers.stored import teacher_calls_of_run
from tests.helpers.teacher_server import completion, error


@pytest.fixture
async def scene(tmp_path: Path):
    async with Scene(tmp_path, audit=EVERY_AUDIT) as scene:
        yield scene


@pytest.mark.slow
async def test_an_audit_becomes_a_comparison_and_a_teacher_call(scene: Scene) -> None:
    student = scene.promote()
    await scene.settle(scene.served("one", student), scene.served("two", student, wrong("two")))

    comparisons = {c.student_output: c for c in scene.comparisons(student)}
    assert {text: c.agrees for text, c in comparisons.items()} == {
        right("one"): True,
        wrong("two"): False,
    }
    assert {c.teacher_output for c in comparisons.values()} == {right("one"), right("two")}
    assert {(c.kind, c.servable, c.fault, c.confidence) for c in comparisons.values()} == {
        ("audit", True, None, -0.01)
    }
    calls = teacher_calls_of_run(scene.db, str(student.run_id))
    assert [(c.purpose, c.task, c.input_tokens) for c in calls] == [("audits", "triage", 7)] * 2
    assert scene.state().comparisons["audit"].n == 2


@pytest.mark.slow
async def test_the_teacher_gets_the_request_without_the_clients_own_fields(scene: Scene) -> None:
    student = scene.promote()
    trace = scene.served("one", student)
    params = '{"model":"gpt-4o","temperature":0.5,"stop":["x"],"user":"u-1","stream":true}'
    trace = msgspec.structs.replace(trace, request_params=params)
    await scene.settle(trace)

    [asked] = scene.teacher.requests
    assert asked.json["messages"] == [{"role": "user", "content": "one"}]
    assert (asked.json["temperature"], asked.json["stop"]) == (0.5, ["x"])
    assert not asked.json.keys() & {"user", "stream"}


@pytest.mark.slow
async def test_an_opted_out_request_is_not_audited_but_counts_as_a_call(scene: Scene) -> None:
    student = scene.promote()
    await scene.settle(scene.served("one", student), scene.served("two", student, content="none"))
    assert [c.student_output for c in scene.comparisons(student)] == [right("one")]
    await scene.monitor.stop()
    scene.monitor = scene.new_monitor()
    await scene.settle()
    assert len(scene.teacher.requests) == 1
    assert scene.state().suspicion["faults"].n == 2


@pytest.mark.slow
async def test_each_request_with_a_repeated_input_is_audited(scene: Scene) -> None:
    student = scene.promote()
    await scene.settle(*(scene.served("the same", student) for _ in range(7)))
    assert len(scene.teacher.requests) == len(scene.comparisons(student)) == 7


@pytest.mark.slow
async def test_half_a_json_answer_of_the_teacher_is_compared_with_nothing(scene: Scene) -> None:
    """It says that it is finished."""
    student = scene.promote(output="json")
    scene.teacher.answer = lambda _: completion('{"topic": "refu')
    await scene.settle(scene.served("a text", student, '{"topic": "refund"}'))
    assert scene.comparisons(student) == []
    assert scene.state().audits.dropped_for == {"no whole answer of the teacher": 1}


@pytest.mark.slow
async def test_only_sampled_requests_are_audited(tmp_path: Path) -> None:
    rate = 0.3
    async with Scene(tmp_path, audit={"first_share": rate, "last_share": rate}) as scene:
        student = scene.promote()
        traces = [scene.served(f"text {n}", student) for n in range(300)]
        await scene.settle(*traces)
        sampler = Sampler(b"k" * 32)
        sampled = {t.trace_id for t in traces if sampler.selects(t.trace_id, "audit", rate)}
        assert {c.trace_id for c in scene.comparisons(student)} == sampled
        assert 50 < len(sampled) < 130


@pytest.mark.slow
async def test_audits_stay_pending_while_the_teacher_is_down(scene: Scene) -> None:
    student = scene.promote()
    scene.teacher.answer = lambda _: error(401, "no", type="auth", code="invalid_api_key")
    await scene.settle(*(scene.served(f"text {n}", student) for n in range(6)))
    assert not scene.comparisons(student)
    assert scene.state().audits.owed == 6
    assert "status 401" in scene.state().waits_for

    asked = len(scene.teacher.requests)
    await scene.settle()  # not before the back-off has ended
    assert len(scene.teacher.requests) == asked

    scene.teacher.answer = answering(right)
    scene.now += FIRST_BACKOFF_S
    await scene.settle()
    assert scene.state().comparisons["audit"].agreed == 6
    assert (scene.state().audits.owed, scene.state().waits_for) == (0, "")


@pytest.mark.slow
async def test_an_audit_that_is_pending_for_too_long_is_dropped(scene: Scene) -> None:
    student = scene.promote()
    scene.teacher.answer = lambda _: error(401, "no")
    await scene.settle(scene.served("one", student))
    scene.now += MAX_PENDING_S + 1
    await scene.settle()
    assert scene.state().audits.dropped_for == {"too old": 1}
    assert scene.state().audits.owed == 0


@pytest.mark.parametrize(
    ("reply", "why", "paid"),
    [
        (error(400, "no", code="content_filter"), "refused by the teacher", 0),
        (completion("half", finish_reason="length"), "no whole answer of the teacher", 1),
        (completion(" "), "no whole answer of the teacher", 1),
    ],
)
@pytest.mark.slow
async def test_a_request_that_the_teacher_refuses_is_dropped(
    scene: Scene, reply, why: str, paid: int
) -> None:
    student = scene.promote()
    scene.teacher.answer = lambda _: reply
    await scene.settle(scene.served("one", student))
    scene.now += 100
    await scene.settle()
    assert len(scene.teacher.requests) == 1
    assert scene.state().audits.dropped_for == {why: 1}
    assert not scene.comparisons(student)
    calls = teacher_calls_of_run(scene.db, str(student.run_id))
    assert len(calls) == paid


@pytest.mark.slow
async def test_a_restart_loses_no_audit_and_repeats_none(scene: Scene) -> None:
    student = scene.promote()
    done = [scene.served(f"done {n}", student) for n in range(5)]
    await scene.settle(*done)
    scene.teacher.answer = lambda r: answering(right)(r).slow(5)
    pending = [scene.served(f"owed {n}", student) for n in range(9)]
    await scene.tick(*pending)
    await asyncio.sleep(0.2)  # some are in progress
    await scene.monitor.stop()
    assert len(scene.comparisons(student)) == 5

    scene.teacher.answer = answering(right)
    scene.monitor = scene.new_monitor()
    await scene.settle()
    comparisons = [c.trace_id for c in scene.comparisons(student)]
    assert sorted(comparisons) == sorted(t.trace_id for t in (*done, *pending))
    assert scene.state().comparisons["audit"].n == 14
    assert scene.state().suspicion["disagreement"].n == 14


@pytest.mark.slow
async def test_slow_audits_of_one_task_do_not_delay_another(tmp_path: Path) -> None:
    async with Scene(tmp_path, audit=EVERY_AUDIT) as scene:
        one, other = scene.promote("one"), scene.promote("other")

        def answer(request):
            reply = answering(right)(request)
            return reply.slow(30) if "slow" in request.body.decode() else reply

        scene.teacher.answer = answer
        async with asyncio.timeout(10):
            await scene.tick(*(scene.served(f"slow {n}", one) for n in range(6)))
            for number in range(5):
                await scene.tick(scene.served(f"quick {number}", other))
            await until(lambda: scene.state("other").comparisons["audit"].n == 5)
            assert scene.state("one").audits.owed == 6
