"""The routes file: whole or absent, and a bad one changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import StoreError
from store.files.routes import ROUTE, RoutesFile, publish_routes, read_routes
from store.records import ConfidenceModel, Forms, OutputKind, Route, TermsOfService
from tests.helpers.paths import ROOT
from tests.helpers.samples import a_route

numbers = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
routes = st.builds(
    Route,
    task=text,
    target=st.sampled_from(["teacher", "student"]),
    reason=text,
    student_id=st.none() | text,
    base_url=text.filter(bool),
    fingerprints=st.lists(text, max_size=3),
    terms=st.builds(
        TermsOfService,
        output=st.sampled_from(get_args(OutputKind)),
        forms=st.none() | st.builds(Forms, labels=st.lists(text, max_size=3)),
        max_tokens=st.integers(1, 2**20),
        timeout_s=numbers,
        cutoff=st.none() | numbers,
        confidence=st.none()
        | st.builds(
            ConfidenceModel, intercept=numbers, weights=st.dictionaries(text, numbers, max_size=2)
        ),
    ),
    max_input_chars=st.integers(0, 2**40),
    certificate_id=st.none() | text,
    at=numbers,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "routes.json"


@settings(max_examples=50, deadline=None)
@given(st.lists(routes, max_size=4, unique_by=lambda r: r.task))
@pytest.mark.slow
def test_routes_are_read_as_they_were_published(published: list[Route]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data" / "routes.json"
        publish_routes(path, {r.task: r for r in published}, at=1.5)
        assert read_routes(path) == {r.task: r for r in published}
        assert [p.name for p in path.parent.iterdir()] == ["routes.json"]


def test_no_file_means_no_routes(path: Path) -> None:
    assert read_routes(path) == {}
    file = RoutesFile(path)
    assert (file.routes, file.error, file.refresh()) == ({}, None, False)


def test_a_change_is_noticed_once(path: Path) -> None:
    file = RoutesFile(path)
    publish_routes(path, {"triage": a_route()}, at=1)
    assert file.refresh()
    assert file.routes["triage"].target == "student"
    assert not file.refresh()
    publish_routes(path, {"triage": a_route(target="teacher", reason="paused")}, at=2)
    assert file.refresh()
    assert file.routes["triage"].reason == "paused"
    path.unlink()
    assert file.refresh()
    assert file.routes == {}


def test_publishing_the_same_routes_again_is_no_change(path: Path) -> None:
    route = a_route()
    publish_routes(path, {"triage": route}, at=1)
    file = RoutesFile(path)
    publish_routes(path, {"triage": route}, at=2)
    assert not file.refresh()
    assert file.routes == {"triage": route}


def _document(**changes: Any) -> dict[str, Any]:
    route = {"task": "triage", "target": "teacher", "reason": "paused", **changes}
    return {"format": 1, "at": 1.0, "routes": {"triage": route}}


BAD: dict[str, bytes] = {
    "empty": b"",
    "torn": json.dumps(_document()).encode()[:-9],
    "not_utf8": b'{"format": 1, "at": 1.0, "routes": {"\xff": {}}}',
    "a_list": b"[]",
    "no_format": b'{"routes": {}}',
    "newer_format": json.dumps({**_document(), "format": 99}).encode(),
    "routes_is_a_list": json.dumps({**_document(), "routes": []}).encode(),
    "no_target": b'{"format":1,"at":1,"routes":{"triage":{"task":"triage","reason":"x"}}}',
    "unknown_target": json.dumps(_document(target="nobody")).encode(),
    "cutoff_is_text": json.dumps(_document(cutoff="low")).encode(),
    "another_task": json.dumps(_document(task="else")).encode(),
    "student_without_address": json.dumps(_document(target="student")).encode(),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_an_unreadable_file_is_reported_and_keeps_the_last_good_routes(
    path: Path, content: bytes
) -> None:
    publish_routes(path, {"triage": a_route()}, at=1)
    file = RoutesFile(path)
    good = dict(file.routes)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"routes\.json"):
        read_routes(path)
    assert not file.refresh()
    assert file.routes == good
    assert file.error is not None and str(path) in file.error

    publish_routes(path, {}, at=2)
    assert file.refresh()
    assert (file.routes, file.error) == ({}, None)


def test_names_of_a_newer_version_are_skipped_and_missing_ones_have_defaults(path: Path) -> None:
    path.write_text(json.dumps({**_document(colour="blue"), "signature": "…"}))
    route = read_routes(path)["triage"]
    assert (route.reason, route.terms) == ("paused", TermsOfService())


FORMER = """{"format": 1, "at": 1760000000.5, "routes": {"triage": {
    "task": "triage", "target": "student", "reason": "certified", "step": "canary", "share": 0.25,
    "forced": false, "student_id": "01890000-0000-7000-8000-000000000000",
    "base_url": "http://127.0.0.1:4242", "fingerprints": ["0123456789abcdef"], "templates": [],
    "confidence": {"intercept": 1.5, "weights": {"lowest": 0.25}}, "cutoff": 0.71,
    "output": "label", "forms": {"labels": ["billing", "shipping"], "keys": [], "calls": [],
    "placeholders": ["<EMAIL>"]}, "scorer": "exact", "agree_at": 1.0, "max_input_chars": 812,
    "max_tokens": 43, "timeout_s": 7.5, "certificate_id": null, "at": 1760000000.0}}}"""


def test_a_file_of_format_1_has_its_terms_of_service_in_one_place(path: Path) -> None:
    path.write_text(FORMER)
    route = read_routes(path)["triage"]
    assert route.terms == TermsOfService(
        output="label",
        forms=Forms(labels=["billing", "shipping"], placeholders=["<EMAIL>"]),
        max_tokens=43,
        timeout_s=7.5,
        cutoff=0.71,
        confidence=ConfidenceModel(intercept=1.5, weights={"lowest": 0.25}),
    )
    assert (route.step, route.share, route.max_input_chars) == ("canary", 0.25, 812)
    assert ROUTE.validate_json(json.dumps(json.loads(FORMER)["routes"]["triage"])) == route


def test_a_version_that_knows_no_terms_of_service_refuses_the_file(path: Path) -> None:
    """It would serve without a cutoff; so the format's number went up."""
    publish_routes(path, {"triage": a_route()}, at=1)
    assert json.loads(path.read_bytes())["format"] == 2


def test_a_folder_in_place_of_the_file_is_an_error_until_the_routes_are_published(
    path: Path,
) -> None:
    path.mkdir(parents=True)
    file = RoutesFile(path)
    assert file.error is not None
    with pytest.raises(StoreError, match="cannot be read"):
        read_routes(path)
    publish_routes(path, {"triage": a_route()}, at=1)
    assert file.refresh()
    assert (list(file.routes), file.error) == (["triage"], None)


@pytest.mark.slow
def test_a_reader_never_sees_half_a_file(path: Path) -> None:
    stop = threading.Event()
    sizes = (1, 40)

    def publish() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            names = [f"task-{n}" for n in range(sizes[turn % 2])]
            publish_routes(path, {n: a_route(task=n) for n in names}, at=turn)

    publisher = threading.Thread(target=publish)
    publisher.start()
    file = RoutesFile(path)
    changes = 0
    while changes < 60:
        changes += file.refresh()
        assert file.error is None
        assert len(file.routes) in (0, *sizes)
    stop.set()
    publisher.join()


PUBLISHER = """
import sys
from pathlib import Path
from tests.helpers.samples import a_route
from store.files.routes import publish_routes

print("ready", flush=True)
while True:
    publish_routes(Path(sys.argv[1]), {f"t{n}": a_route(task=f"t{n}") for n in range(50)}, at=1)
"""


@pytest.mark.slow
def test_kill_9_of_the_publisher_leaves_a_whole_file(path: Path) -> None:
    publish_routes(path, {"t0": a_route(task="t0")}, at=1)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.stdout.close()
        process.wait()
        assert len(read_routes(path)) in (1, 50)
