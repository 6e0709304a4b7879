"""Which route follows from a promotion, a living student and the settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from distill.publish import Publisher, routes_now
from distill.status.status import ProxyRoutes
from distill.students.students import ReadyStudent
from store.files.routes import RoutesFile, read_routes
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


def with_other_share(file: Path) -> None:
    """As an editor leaves it: other content, and here the same length and time."""
    state = file.stat()
    file.write_bytes(file.read_bytes().replace(b'"share": 1.0', b'"share": 0.0'))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def in_its_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace_file(file: Path) -> None:
        file.unlink()
        make(file)

    return replace_file


HARM: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda file: file.write_bytes(b""),
    "edited": with_other_share,
    "torn": lambda file: file.write_bytes(file.read_bytes()[:-40]),
    "a named pipe": in_its_place(os.mkfifo),
    "a dangling link": in_its_place(lambda file: file.symlink_to("/nowhere/at/all")),
    "a link to the same": in_its_place(lambda file: file.symlink_to(file.with_name("copy"))),
    "a directory with files": in_its_place(lambda file: (file / "in" / "it").mkdir(parents=True)),
    "an endless file": lambda file: os.truncate(file, 1 << 40),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_routes_file_that_is_not_as_it_was_published_is_written_again(
    tmp_path: Path, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "routes.json"
    publisher = Publisher(file, lambda: 1.0)
    publisher.restore()
    assert not file.exists()  # nothing was published yet
    routes = {"t": replace(ROUTE, base_url=URL)}
    publisher.publish(routes)
    (tmp_path / "copy").write_bytes(file.read_bytes())
    reader = RoutesFile(file)
    harm(file)
    reader.refresh()  # does not block
    assert reader.routes == routes or harm in (Path.unlink, with_other_share)
    publisher.restore()
    assert read_routes(file) == routes
    assert "written again" in caplog.text
    reader.refresh()
    assert (reader.routes, reader.error) == (routes, None)
    caplog.clear()
    publisher.restore()
    assert not caplog.text


def test_the_status_has_the_routes_that_the_proxies_have(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    publisher = Publisher(file, lambda: 1.0)
    first, second = replace(ROUTE, base_url=URL), replace(ROUTE, base_url=URL, share=0.25)
    publisher.publish({"t": first})
    assert publisher.proxies is None
    reader = RoutesFile(file)
    publisher.publish({"t": second})
    publisher.report([reader.digest] * 2)
    assert publisher.route("t") == first  # what is meant is not what they do
    assert publisher.proxies == ProxyRoutes(workers=2, current=0)
    late = reader.digest
    reader.refresh()
    publisher.report([reader.digest, late, reader.digest])
    assert publisher.route("t") == second
    assert publisher.proxies == ProxyRoutes(workers=3, current=2)
    file.unlink()
    reader.refresh()
    publisher.report([reader.digest])
    assert publisher.route("t") is None
    publisher.report([0xABC])  # of a file that somebody else wrote
    assert publisher.proxies == ProxyRoutes(workers=1, current=0)


def test_a_control_plane_that_starts_again_knows_the_routes_that_it_finds(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    route = replace(ROUTE, base_url=URL)
    Publisher(file, lambda: 1.0).publish({"t": route})
    held = RoutesFile(file).digest
    second = Publisher(file, lambda: 2.0)
    second.publish({})
    second.report([held])
    assert second.route("t") == route
