"""Which route follows from a promotion, a living student and the settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distill.publish import Publisher, routes_now
from distill.students.students import ReadyStudent
from store.files.routes import read_routes
from store.records import Promotion, Reason, Route, TermsOfService
from store.settings.config import parse_config

ENTRY = {"model_name": "m", "litellm_params": {"model": "openai/m", "api_key": "k"}}
ROUTE = Route(
    task="t",
    target="student",
    reason=Reason.CERTIFIED,
    student_id="run-1",
    terms=TermsOfService(cutoff=-0.1),
)
URL = "http://127.0.0.1:7001"


def promotion(target: str = "student", route: Route | None = ROUTE) -> Promotion:
    return Promotion(
        promotion_id="p",
        task="t",
        target=target,  # type: ignore[arg-type]
        state="live",
        reason="",
        actor="gate",
        at=0.0,
        run_id="run-1",
        route=route,
    )


@pytest.mark.parametrize(
    ("ready", "paused", "target", "reason", "url"),
    [
        ({"t": ReadyStudent("run-1", URL)}, False, "student", Reason.CERTIFIED, URL),
        ({}, False, "teacher", Reason.STUDENT_STARTING, None),
        # the one that answers is another than the one that was certified
        ({"t": ReadyStudent("run-0", URL)}, False, "teacher", Reason.STUDENT_STARTING, None),
        ({"t": ReadyStudent("run-1", URL)}, True, "teacher", Reason.PAUSED, None),
        ({"u": ReadyStudent("run-1", URL)}, False, "teacher", Reason.STUDENT_STARTING, None),
    ],
)
def test_the_route_of_a_task_by_its_promotion_and_its_student(
    ready, paused, target, reason, url
) -> None:
    config = parse_config({"model_list": [ENTRY], "tasks": {"t": {"paused": paused}}})
    route = routes_now({"t": promotion()}, ready, config)["t"]
    assert (route.target, route.reason, route.base_url) == (target, reason, url)
    assert route.terms.cutoff == -0.1


@pytest.mark.parametrize(("step", "share"), [("shadow", 0.0), ("canary", 0.25), ("live", 1.0)])
def test_the_share_of_a_student_by_its_step(step, share) -> None:
    """Also in shadow: proxies give requests that it is certified for a reason of their own."""
    config = parse_config({"model_list": [ENTRY]})
    promoted = promotion(route=replace(ROUTE, step=step, share=share))
    route = routes_now({"t": promoted}, {"t": ReadyStudent("run-1", URL)}, config)["t"]
    assert (route.target, route.base_url) == ("student", URL)
    assert (route.step, route.share, route.reason) == (step, share, Reason.CERTIFIED)


@pytest.mark.parametrize("kept", [None, ROUTE])
def test_a_demoted_task_goes_to_the_teacher_and_says_why(kept: Route | None) -> None:
    config = parse_config({"model_list": [ENTRY]})
    route = routes_now(
        {"t": promotion("teacher", kept)}, {"t": ReadyStudent("run-1", URL)}, config
    )["t"]
    assert (route.target, route.reason, route.share) == ("teacher", Reason.DEMOTED, 0)
    assert (route.base_url, route.student_id, route.fingerprints) == (None, None, [])


@pytest.mark.parametrize("target", ["student", "teacher"])
def test_a_pause_by_hand_is_one_like_the_configs(target: str) -> None:
    config = parse_config({"model_list": [ENTRY]})
    known = {"t": promotion(target, ROUTE)}
    route = routes_now(known, {"t": ReadyStudent("run-1", URL)}, config, {"t"})["t"]
    assert (route.target, route.reason) == ("teacher", Reason.PAUSED)
    assert (
        routes_now(known, {"t": ReadyStudent("run-1", URL)}, config, {"u"})["t"].reason
        != Reason.PAUSED
    )


def test_equal_routes_are_not_published_again(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    route = replace(ROUTE, base_url=URL)
    publisher = Publisher(file, lambda: 1.0)
    assert publisher.publish({})  # also over what an earlier process left
    assert not publisher.publish({})
    assert publisher.publish({"t": route})
    first = file.stat().st_mtime_ns
    assert not publisher.publish({"t": route})
    assert file.stat().st_mtime_ns == first
    assert read_routes(file) == {"t": route} == publisher.routes
