"""Monitoring promoted students: which are demoted, how soon, and which keep serving."""

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
from store.jsontext import to_json
from store.records import (
    Comparison,
    Promotion,
    Reason,
)
from tests.helpers.live_scene import (
    EVERY_AUDIT,
    Scene,
    answering,
    right,
    spelled,
    until,
    wrong,
)
from tests.helpers.samples import a_comparison, an_action

RUN_LENGTH = 5000


@pytest.fixture
async def scene(tmp_path: Path):
    async with Scene(tmp_path, audit=EVERY_AUDIT, rollout={"min_comparisons": 1000}) as scene:
        yield scene


def audits_until_alarm(bad: list[bool]) -> int:
    """After how many of these audits the detector alone raises its alarm."""
    detector = ChangeDetector(1 - 0.95, RUN_LENGTH)
    return next(n for n, one in enumerate(bad, 1) if detector.update(one))


def before_demotion(scene: Scene, student: Promotion) -> list[Comparison]:
    return [c for c in scene.comparisons(student) if c.at <= scene.promotion().at]


@pytest.mark.slow
async def test_a_wrong_student_is_demoted_as_soon_as_the_detector_allows(scene: Scene) -> None:
    """Its wrong answers have the right form."""
    student = scene.promote()
    good = [scene.served(f"good {n}", student) for n in range(40)]
    await scene.settle(*good)
    assert scene.promotion().target == "student"
    wrong_since = scene.now

    fewest = audits_until_alarm([False] * 40 + [True] * 100)
    asked = 0
    while scene.promotion().target == "student":
        asked += 1
        text = f"bad {asked}"
        await scene.settle(scene.served(text, student, wrong(text)))
        assert asked <= fewest - 40
    demotion = scene.promotion()
    assert len(before_demotion(scene, student)) == fewest
    assert (demotion.state, demotion.actor) == ("demoted", "audit")
    assert demotion.run_id == student.run_id
    assert demotion.reason
    assert demotion.suspect_since is not None
    assert demotion.suspect_since >= wrong_since

    route = scene.route()
    assert (route.target, route.reason, route.base_url) == ("teacher", Reason.DEMOTED, None)
    assert scene.monitor.state("triage") is None
    asked_before = len(scene.teacher.requests)
    await scene.settle(
        scene.served("late", student, "late")
    )  # by a proxy that has not read the routes yet
    assert len(scene.teacher.requests) == asked_before


@pytest.mark.slow
async def test_one_conversation_audited_fifty_times_demotes_nobody(scene: Scene) -> None:
    """Nor does it prove anything: it is one group, also after a restart."""
    student = scene.promote()
    await scene.settle(*(scene.served(f"good {n}", student) for n in range(10)))
    turns = [{"role": "user", "content": "my parcel is lost"}]
    requests = []
    for number in range(50):
        messages = to_json(turns).decode()
        requests.append(scene.served("a turn", student, "nonsense", input_messages=messages))
        turns += [
            {"role": "assistant", "content": "nonsense"},
            {"role": "user", "content": f"and what about {spelled(str(number))}"},
        ]
    await scene.settle(*requests)
    for restarted in (False, True):
        if restarted:
            await scene.monitor.stop()
            scene.monitor = scene.new_monitor()
            await scene.settle()
        state = scene.state()
        assert (state.rows, state.groups, state.groups_agreed) == (60, 11, 10)
        assert (state.suspicion["disagreement"].n, state.suspicion["disagreement"].bad) == (11, 1)
        assert "11 groups (60 comparisons), 10 agree" in state.reason


@pytest.mark.slow
async def test_restarts_do_not_delay_a_demotion(scene: Scene) -> None:
    student = scene.promote()
    fewest = audits_until_alarm([False] * 30 + [True] * 100)
    await scene.settle(*(scene.served(f"good {n}", student) for n in range(30)))
    for asked in range(1, 100):
        # a restart after each wrong answer, half of them during an audit
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
        audited = [c.trace_id for c in scene.comparisons(student)]
        assert len(audited) == len(set(audited)) == 30 + asked  # none lost, none twice
        if scene.promotion().target == "teacher":
            break
    assert asked == fewest - 30


@pytest.mark.slow
async def test_a_student_within_tolerance_keeps_serving(scene: Scene) -> None:
    """2 of 100 answers differ from the teacher's, 5 are tolerated."""
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


@pytest.mark.slow
async def test_a_demotion_does_not_affect_another_task(scene: Scene) -> None:
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


@pytest.mark.slow
async def test_a_good_student_goes_from_shadow_to_live(tmp_path: Path) -> None:
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

        scene.monitor = scene.new_monitor()  # after a restart
        await scene.settle()
        assert scene.state().comparisons["shadow"].n == 15
        assert scene.state().promoted_at == student.at


@pytest.mark.parametrize(
    ("step", "share", "next_share"),
    [("shadow", 0.0, 0.05), ("canary", 0.05, 0.25), ("canary", 0.25, 1.0), ("live", 1.0, None)],
)
@pytest.mark.slow
async def test_the_state_names_the_next_step(
    scene: Scene, step: str, share: float, next_share: float | None
) -> None:
    scene.promote(step=step, share=share)
    await scene.settle()
    state = scene.state()
    assert (state.step, state.share, state.shares) == (step, share, [0.05, 0.25, 1.0])
    assert (state.next_share, state.groups_needed) == (next_share, 1000)


@pytest.mark.slow
async def test_rows_of_a_step_are_fair_samples_without_feedback(scene: Scene) -> None:
    student = scene.promote()
    await scene.settle(*(scene.served(f"good {n}", student) for n in range(3)))
    complaint = a_comparison(student_id=student.run_id, kind="feedback", agrees=False, at=scene.now)
    write_comparisons(scene.db, [complaint])
    await scene.monitor.stop()
    scene.monitor = scene.new_monitor()
    await scene.settle()
    assert scene.state().comparisons["feedback"].n == 1
    assert (scene.state().groups, scene.state().groups_agreed) == (3, 3)


async def test_a_promotion_by_hand_continues_the_evidence(scene: Scene) -> None:
    student = scene.promote(step="shadow")
    await scene.settle()
    assert scene.state().step == "shadow"
    by_hand = scene.promote(run_id=student.run_id, step="live")
    await scene.settle()
    assert (scene.state().step, scene.state().promoted_at) == ("live", student.at)
    assert scene.state().step_at == by_hand.at


@pytest.mark.slow
async def test_a_demoted_student_promoted_again_has_new_evidence(scene: Scene) -> None:
    student = scene.promote()
    await scene.settle(*(scene.served(f"text {n}", student, "nonsense") for n in range(60)))
    assert scene.promotion().state == "demoted"
    scene.now += 1
    again = scene.promote(run_id=student.run_id, forced=True)
    await scene.settle()
    assert scene.state().promoted_at == again.at
    assert scene.state().suspicion["disagreement"].n == scene.state().audits.owed == 0
    assert "past the gate" in scene.state().reason


@pytest.mark.slow
async def test_a_new_student_does_not_inherit_evidence(scene: Scene) -> None:
    first = scene.promote()
    await scene.settle(*(scene.served(f"a {n}", first) for n in range(3)))
    second = scene.promote()
    await scene.settle(scene.served("late", first, "nonsense"), scene.served("new", second))
    assert scene.state().student_id == second.run_id
    assert scene.state().comparisons["audit"].n == 1
    assert scene.state().suspicion["disagreement"].bad == 0


@pytest.mark.slow
async def test_a_paused_task_is_not_audited(scene: Scene) -> None:
    student = scene.promote()
    append_action(scene.db, an_action(command="pause", at=scene.now))
    await scene.settle(scene.served("one", student))
    assert not scene.teacher.requests
    append_action(scene.db, an_action(command="resume", at=scene.now + 1))
    await scene.settle()
    assert len(scene.teacher.requests) == 1


@pytest.mark.slow
async def test_complaints_count_as_failed_audits(scene: Scene) -> None:
    """But once, for a trace that failed its audit too."""
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
            at=scene.now + 1,
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


@pytest.mark.slow
async def test_requests_collected_unseen_are_read_after_a_reload(scene: Scene) -> None:
    """As when collecting failed after some traces were stored."""
    student = scene.promote()
    await scene.settle(scene.served("one", student))
    await asyncio.to_thread(scene._collect, (scene.served("two", student),))
    await scene.settle()
    assert scene.state().comparisons["audit"].n == 1
    scene.monitor.reload()
    await scene.settle()
    assert scene.state().comparisons["audit"].n == 2
    assert scene.state().suspicion["faults"].n == 2


@pytest.mark.slow
async def test_a_demotion_by_hand_is_not_overwritten_by_a_late_audit(scene: Scene) -> None:
    """The audit that would demote the student is in progress when it is demoted by hand."""
    student = scene.promote()
    fewest = audits_until_alarm([True] * 100)
    await scene.settle(*(scene.served(f"a {n}", student, "x") for n in range(fewest - 1)))
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
