"""Commands over the status API: what is taken, what is refused, and what the answer says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from store.database.actions import actions_of_task, paused_tasks
from store.database.database import Database
from tests.helpers.api_scene import TOKEN, api_scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[TestClient, Database]]:
    with api_scene(tmp_path) as (client, db, *_):
        yield client, db


def give(client: TestClient, command: str, body: Any = None, **headers: str) -> Any:
    """Posts a command as the proxy would hand it on."""
    path = f"/distill/tasks/triage/{command}"
    return client.post(path, json=body or {}, headers={**TOKEN, **headers})


@pytest.mark.slow
def test_a_command_says_what_it_did_and_how_the_task_stands_now(scene) -> None:
    client, db = scene
    answer = give(
        client, "pause", {"reason": " Umbau \N{GEAR} "}, **{"x-understudy-actor": "B%C3%BCro"}
    )
    assert answer.status_code == 200
    said = answer.json()
    assert said["done"].startswith("paused: no runs")
    paused = said["status"]["paused"]
    assert (paused["by"], paused["reason"]) == (
        "B\N{LATIN SMALL LETTER U WITH DIAERESIS}ro",
        "Umbau \N{GEAR}",
    )
    [turn] = said["status"]["history"]
    assert (turn["state"], turn["target"], turn["actor"]) == ("pause", None, paused["by"])
    assert paused_tasks(db) == {"triage"}
    assert give(client, "resume").json()["status"]["paused"] is None


@pytest.mark.slow
def test_a_command_that_cannot_be_carried_out_is_a_409_that_says_why(scene) -> None:
    client, db = scene
    for command in ("promote", "demote"):
        answer = give(client, command)
        assert answer.status_code == 409
        assert answer.json()["detail"].startswith(f"cannot {command} triage: ")
    assert actions_of_task(db, "triage") == []


@pytest.mark.parametrize(
    ("command", "body", "status"),
    [
        ("explode", {}, 422),
        ("pause", {"reason": "x" * 501}, 422),
        ("pause", {"reason": "a\nb"}, 422),
        ("pause", {"reason": "a\x1b[31mb"}, 422),
        ("pause", {"reason": "a\N{RIGHT-TO-LEFT OVERRIDE}b"}, 422),
        ("pause", {"reason": 1}, 422),
        ("pause", {"raeson": "a"}, 422),
        ("demote", {"force": True}, 422),
        ("pause", ["reason"], 422),
        ("pause", {"reason": "x" * 500}, 200),
    ],
)
@pytest.mark.slow
def test_a_command_with_unknown_or_invalid_fields_is_refused(
    scene, command: str, body: Any, status: int
) -> None:
    client, db = scene
    assert give(client, command, body).status_code == status
    assert len(actions_of_task(db, "triage")) == (status == 200)


@pytest.mark.slow
def test_a_command_is_json_for_a_known_task_and_from_the_proxy(scene) -> None:
    client, db = scene
    path = "/distill/tasks/triage/pause"
    form = {**TOKEN, "content-type": "text/plain"}
    assert client.post(path, content='{"reason": ""}', headers=form).status_code == 415
    assert client.post(path, headers=TOKEN).status_code == 415
    assert client.post(path, json={}).status_code == 403
    assert client.get(path, headers=TOKEN).status_code == 405
    assert client.post("/distill/tasks/never/pause", json={}, headers=TOKEN).status_code == 404
    assert actions_of_task(db, "triage") == []
