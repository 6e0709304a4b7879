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
from store.files.routes import RoutesFile, publish_routes, read_routes
from store.records import OutputKind, Route
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
    cutoff=st.none() | numbers,
    output=st.sampled_from(get_args(OutputKind)),
    max_input_chars=st.integers(0, 2**40),
    max_tokens=st.integers(1, 2**20),
    timeout_s=numbers,
    certificate_id=st.none() | text,
    at=numbers,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "routes.json"


@settings(max_examples=50, deadline=None)
@given(st.lists(routes, max_size=4, unique_by=lambda r: r.task))
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


def test_publishing_the_same_again_is_no_change(path: Path) -> None:
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
def test_a_bad_file_says_so_and_keeps_the_last_good_routes(path: Path, content: bytes) -> None:
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
    assert (route.reason, route.max_tokens, route.cutoff) == ("paused", 512, None)


def test_a_folder_in_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be published"):
        publish_routes(tmp_path / "data" / "routes.json", {}, at=1)
    with pytest.raises(StoreError, match="cannot be read"):
        read_routes(tmp_path / "data" / "routes.json")
    (tmp_path / "routes.json").mkdir()
    with pytest.raises(StoreError, match="cannot be published"):
        publish_routes(tmp_path / "routes.json", {}, at=1)
    file = RoutesFile(tmp_path / "routes.json")
    assert file.error is not None


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
