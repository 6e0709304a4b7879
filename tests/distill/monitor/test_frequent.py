"""What becomes frequent after a promotion and is answered otherwise is left to the teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distill.dataset.exchange import shape_body
from distill.monitor.frequent import MAX_INPUTS, listing
from store.chat.shape import input_hash, rest_of_shape
from store.database.comparisons import ComparedOften
from store.database.promotions import latest_promotions, update_promotion
from store.files.routes import read_routes
from store.records import LoggedRequest, PromptTemplate
from tests.helpers.live_scene import EVERY_AUDIT, Scene, wrong
from tests.helpers.samples import a_route

PING = "are you still there"


def often(text: str, *, compared: int, agreed: int, system: str = "") -> ComparedOften:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return ComparedOften(
        fingerprint=f"of {system}",
        compared=compared,
        agreed=agreed,
        request=LoggedRequest(messages=messages, params={"model": "gpt-4o"}, tools=None),
    )


def hash_of(text: str) -> str:
    return input_hash([{"role": "user", "content": text}])


def test_an_input_is_listed_when_it_differs_twice_and_agrees_too_seldom() -> None:
    route = a_route(teacher_inputs=["before"])

    def listed(compared: int, agreed: int) -> bool:
        found = listing(route, [often(PING, compared=compared, agreed=agreed)], 0.95)
        assert found.teacher_inputs[0] == "before"
        return hash_of(PING) in found.teacher_inputs

    assert listed(2, 0) and listed(9, 7) and listed(30, 28)
    assert not listed(1, 0) and not listed(9, 8) and not listed(100, 98)


def test_a_list_in_a_route_is_bounded() -> None:
    found = [often(f"text {n}", compared=9, agreed=0) for n in range(MAX_INPUTS + 50)]
    assert len(listing(a_route(teacher_inputs=["first"]), found, 0.95).teacher_inputs) == MAX_INPUTS


def test_an_input_under_a_varying_prompt_is_listed_with_what_varies() -> None:
    one = often(PING, compared=9, agreed=0, system="Today is Monday.")
    plain = listing(a_route(), [one], 0.95).teacher_inputs
    assert plain == [hash_of(PING)]
    template = PromptTemplate(
        template_id="t",
        shape=rest_of_shape(shape_body(one.request)),
        literals=["Today is ", "."],
        holes=[20],
        distinct=9,
    )
    within = listing(a_route(templates=[template]), [one], 0.95).teacher_inputs
    assert within == [input_hash(one.request.messages, ["Monday"])]


@pytest.mark.slow
async def test_an_input_that_becomes_frequent_and_differs_is_left_to_the_teacher(
    tmp_path: Path,
) -> None:
    async with Scene(tmp_path, audit=EVERY_AUDIT) as scene:
        student = scene.promote()
        others = [scene.served(f"text {n}", student) for n in range(20)]
        await scene.settle(*others)
        assert scene.promotion().route == student.route
        pings = [scene.served(PING, student, wrong(PING)) for _ in range(6)]
        await scene.settle(*pings)

        promoted = scene.promotion()
        assert promoted.route is not None
        assert promoted.promotion_id == student.promotion_id  # no step, and no new evidence
        assert promoted.route.teacher_inputs == [pings[0].input_hash]
        published = read_routes(scene.config.routes_file)["triage"]
        assert published.teacher_inputs == [pings[0].input_hash]
        assert scene.state().step == "live"


@pytest.mark.slow
async def test_a_step_does_not_bring_a_forgotten_input_back(tmp_path: Path) -> None:
    async with Scene(tmp_path) as scene:
        scene.promote(step="shadow", teacher_inputs=["of a forgotten user"])
        await scene.settle()
        kept = latest_promotions(scene.db)["triage"]
        assert kept.route is not None
        route = replace(kept.route, teacher_inputs=[])
        update_promotion(scene.db, replace(kept, route=route))
        await scene.settle()
        monitored = scene.monitor._monitors["triage"].route
        assert monitored.teacher_inputs == []
