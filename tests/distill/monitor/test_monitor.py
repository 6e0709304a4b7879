"""The watch over promoted students: who is found out, how soon, and who is left alone."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from distill.monitor.detector import ChangeDetector
from store.database.actions import append_action
from store.database.comparisons import write_comparisons
from store.database.promotions import append_promotion, promotions_of_task
from store.ids import new_id
from store.records import (
    Comparison,
    Promotion,
    Reason,
)
from tests.helpers.live_scene import EVERY_AUDIT, Scene, answering, right, until, wrong
from tests.helpers.samples import a_comparison, an_action

RUN_LENGTH = 5000


@pytest.fixture
async def scene(tmp_path: Path):
    async with Scene(tmp_path, audit=EVERY_AUDIT, rollout={"min_comparisons": 1000}) as scene:
        yield scene


def audits_until_alarm(bad: list[bool]) -> int:
    """How many of these audits it takes, by the detector alone."""
    detector = ChangeDetector(1 - 0.95, RUN_LENGTH)
    return next(n for n, one in enumerate(bad, 1) if detector.update(one))


def before_demotion(scene: Scene, student: Promotion) -> list[Comparison]:
    return [c for c in scene.comparisons(student) if c.at <= scene.promotion().at]


@pytest.mark.parametrize("repeated", [False, True])
async def test_a_wrong_student_is_demoted(scene: Scene, repeated: bool) -> None:
    """Its answers keep their form. One input that comes for ever does not hide it."""
    student = scene.promote()
    good = [scene.served(f"good {n}", student) for n in range(40)]
    await scene.settle(*good)
    assert scene.promotion().target == "student"
    gone_wrong = scene.now

    soonest = audits_until_alarm([False] * 40 + [True] * 100)
    asked = 0
    while scene.promotion().target == "student":
        asked += 1
        text = "the same" if repeated else f"bad {asked}"
        await scene.settle(scene.served(text, student, wrong(text)))
        assert asked <= soonest - 40
    demotion = scene.promotion()
    assert len(before_demotion(scene, student)) == soonest
    assert (demotion.state, demotion.actor) == ("demoted", "audit")
    assert demotion.run_id == student.run_id
    assert demotion.reason
    # since about the first wrong answer, and not before it
    assert demotion.suspect_since is not None
    assert demotion.suspect_since >= gone_wrong

    route = scene.route()
    assert (route.target, route.reason, route.base_url) == ("teacher", Reason.DEMOTED, None)
    assert scene.monitor.state("triage") is None
    asked_before = len(scene.teacher.requests)
    await scene.settle(scene.served("late", student, "late"))  # a proxy that had not read it yet
    assert len(scene.teacher.requests) == asked_before


async def test_it_is_demoted_across_restarts(scene: Scene) -> None:
    student = scene.promote()
    soonest = audits_until_alarm([False] * 30 + [True] * 100)
    await scene.settle(*(scene.served(f"good {n}", student) for n in range(30)))
    for asked in range(1, 100):
        # each wrong answer meets another watch, and half of them one that was killed meanwhile
        if asked % 2:
            scene.teacher.answer = lambda r: answering(right)(r).slow(2)
            await scene.tick(scene.served(f"bad {asked}", student, "nonsense"))
            await asyncio.sleep(0.02)
            await scene.monitor.stop()
            scene.teacher.answer = answering(right)
            scene.monitor = scene.new_monitor()
            await scene.settle()
        else:
            await scene.settle(scene.served(f"bad {asked}", student, "nonsense"))
        found = [c.trace_id for c in scene.comparisons(student)]
        assert len(found) == len(set(found)) == 30 + asked  # none lost, none twice
        if scene.promotion().target == "teacher":
            break
    assert asked == soonest - 30


async def test_a_good_student_serves_on(scene: Scene) -> None:
    """2 of 100 differ from the teacher: less than what is tolerated."""
    student = scene.promote()
    draw = random.Random(7)
    for batch in range(3):
        await scene.settle(
            *(
                scene.served(f"{batch} {n}", student, "other" if draw.random() < 0.02 else None)
                for n in range(50)
            )
        )
    assert scene.promotion().target == "student"
    assert scene.state().comparisons["audit"].n == 150


async def test_two_tasks_share_nothing(scene: Scene) -> None:
    one, other = scene.promote("one"), scene.promote("other")
    for number in range(40):
        await scene.settle(
            scene.served(f"text {number}", one, "nonsense"), scene.served(f"text {number}", other)
        )
    assert scene.promotion("one").state == "demoted"
    assert scene.promotion("other").target == "student"
    assert (
        scene.state("other").suspicion["disagreement"].bad
        == scene.state("other").suspicion["faults"].bad
        == 0
    )
    assert {c.task for c in scene.comparisons(one)} == {"one"}
    assert scene.route("other").target == "student"


async def test_from_shadow_to_live(tmp_path: Path) -> None:
    certified = {"n": 400, "agreed": 398, "heldout": 400}
    settings = {
        "shadow_share": 1.0,
        "shares": [0.1, 0.5, 1.0],
        "min_comparisons": 5,
        "confirm": False,
    }
    async with Scene(tmp_path, audit=EVERY_AUDIT, rollout=settings) as scene:
        student = scene.promote(step="shadow", certificate=certified)
        seen = []
        for number in range(60):
            state = scene.monitor.state("triage")
            if state is not None:
                seen.append((state.step, state.share))
            text = f"text {number}"
            step = scene.promotion().state
            if step == "live":
                break
            reason = Reason.SHADOW if step == "shadow" else Reason.NOT_IN_SHARE
            scene.now += 2  # proxies have read the routes
            await scene.settle(scene.request(text, reason=reason))
        steps = [("shadow", 0), ("canary", 0.1), ("canary", 0.5), ("live", 1.0)]
        assert list(dict.fromkeys(seen)) == steps
        live = scene.promotion()
        assert (live.state, live.actor, live.run_id) == ("live", "rollout", student.run_id)
        assert live.certificate == student.certificate
        history = promotions_of_task(scene.db, "triage")
        assert [(p.state, p.route and p.route.share) for p in reversed(history)] == steps
        route = scene.route()
        assert (route.target, route.step, route.share) == ("student", "live", 1.0)
        assert scene.state().rows == 0
        assert scene.state().comparisons["shadow"].n == 15
        await scene.monitor.stop()

        scene.monitor = scene.new_monitor()  # a restart knows all of it
        await scene.settle()
        assert scene.state().comparisons["shadow"].n == 15
        assert scene.state().promoted_at == student.at


async def test_a_step_by_hand_is_followed(scene: Scene) -> None:
    student = scene.promote(step="shadow")
    await scene.settle()
    assert scene.state().step == "shadow"
    by_hand = scene.promote(run_id=student.run_id, step="live")
    await scene.settle()
    assert (scene.state().step, scene.state().promoted_at) == ("live", student.at)
    assert scene.state().step_at == by_hand.at


async def test_a_student_that_comes_back_starts_anew(scene: Scene) -> None:
    student = scene.promote()
    await scene.settle(*(scene.served(f"text {n}", student, "nonsense") for n in range(60)))
    assert scene.promotion().state == "demoted"
    scene.now += 1
    again = scene.promote(run_id=student.run_id, forced=True)
    await scene.settle()
    assert scene.state().promoted_at == again.at
    assert scene.state().suspicion["disagreement"].n == scene.state().audits.owed == 0
    assert "past the gate" in scene.state().reason


async def test_another_student_is_another_case(scene: Scene) -> None:
    first = scene.promote()
    await scene.settle(*(scene.served(f"a {n}", first) for n in range(3)))
    second = scene.promote()
    await scene.settle(scene.served("late", first, "nonsense"), scene.served("new", second))
    assert scene.state().student_id == second.run_id
    assert scene.state().comparisons["audit"].n == 1
    assert scene.state().suspicion["disagreement"].bad == 0


async def test_a_paused_task_is_left_alone(scene: Scene) -> None:
    student = scene.promote()
    append_action(scene.db, an_action(command="pause", at=scene.now))
    await scene.settle(scene.served("one", student))
    assert not scene.teacher.requests
    append_action(scene.db, an_action(command="resume", at=scene.now + 1))
    await scene.settle()
    assert len(scene.teacher.requests) == 1


async def test_complaints_are_failed_audits(scene: Scene) -> None:
    """Of a trace that failed its audit too, once."""
    student = scene.promote()
    good = [scene.served(f"good {n}", student) for n in range(3)]
    await scene.settle(*good, scene.served("bad", student, "nonsense"))
    assert scene.state().suspicion["disagreement"].bad == 1
    bad = next(c for c in scene.comparisons(student) if not c.agrees)
    complaints = [
        a_comparison(
            trace_id=trace_id,
            student_id=student.run_id,
            kind="feedback",
            agrees=False,
            score=0.0,
            at=scene.now,
        )
        for trace_id in (good[0].trace_id, bad.trace_id)
    ]
    write_comparisons(scene.db, complaints)
    await scene.monitor.stop()
    scene.monitor = scene.new_monitor()
    await scene.settle()
    assert scene.state().comparisons["feedback"].n == 2
    assert (
        scene.state().suspicion["disagreement"].n,
        scene.state().suspicion["disagreement"].bad,
    ) == (5, 2)


async def test_what_a_beat_was_not_told_of_is_read(scene: Scene) -> None:
    """A collecting that broke off after some traces were in the store."""
    student = scene.promote()
    await scene.settle(scene.served("one", student))
    await asyncio.to_thread(scene._collect, (scene.served("two", student),))
    await scene.settle()
    assert scene.state().comparisons["audit"].n == 1
    scene.monitor.reload()
    await scene.settle()
    assert scene.state().comparisons["audit"].n == 2
    assert scene.state().suspicion["faults"].n == 2


async def test_a_verdict_on_what_is_no_more_changes_nothing(scene: Scene) -> None:
    """The task is demoted by hand while an audit that would demote it is under way."""
    student = scene.promote()
    soonest = audits_until_alarm([True] * 100)
    await scene.settle(*(scene.served(f"a {n}", student, "x") for n in range(soonest - 1)))
    scene.teacher.answer = lambda r: answering(right)(r).slow(0.3)
    await scene.tick(scene.served("last", student, "x"))
    by_hand = Promotion(
        promotion_id=new_id(),
        task="triage",
        target="teacher",
        state="demoted",
        reason="by hand",
        actor="tester",
        at=scene.now + 1,
        run_id=student.run_id,
    )
    append_promotion(scene.db, by_hand)
    await until(lambda: not scene.monitor.busy)
    assert scene.promotion() == by_hand
