"""Commands as a user types them: through the real proxy and the real API, into the store."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from store.database.actions import actions_of_task
from store.database.database import Database
from store.database.promotions import append_promotion
from tests.helpers.api_scene import TOKEN, api_scene
from tests.helpers.samples import a_promotion
from tests.helpers.serving import ProxyThread, wait_until

KEYS = [{"key": "first-key", "name": "support app", "may": ["use", "operate"]}]


def understudy(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def scene(start_proxy, tmp_path: Path) -> Iterator[tuple[ProxyThread, Database]]:
    """A proxy with a key, before a control plane's API over a real store."""
    with api_scene(tmp_path / "store") as (client, db, *_):
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(client.app, lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            runtime = {
                "control_port": listening.getsockname()[1],
                "control_token": TOKEN["x-understudy-token"],
            }
            yield start_proxy(runtime=runtime, server={"keys": KEYS}), db
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.mark.slow
def test_a_command_is_carried_out_in_the_keys_name(scene) -> None:
    proxy, db = scene
    how = ("--server", proxy.base_url, "--key", "first-key")
    done = understudy("pause", "triage", "--reason", "a new prompt is coming", *how)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("triage: paused: no runs, and the teacher answers")
    [action] = actions_of_task(db, "triage")
    assert (action.actor, action.reason) == ("support app", "a new prompt is coming")
    done = understudy("resume", "triage", "--json", *how)
    assert json.loads(done.stdout)["status"]["paused"] is None
    assert understudy("retrain", "triage", *how).stdout == "triage: a run is due now\n"
    assert understudy("status", "triage", *how).stdout.count("by support app") == 3


@pytest.mark.slow
def test_force_promotes_a_demoted_student(scene) -> None:
    proxy, db = scene
    how = ("--server", proxy.url, "--key", "first-key")
    refused = understudy("demote", "triage", *how)
    assert refused.exit_code == 1
    assert refused.stderr == (
        "understudy: cannot demote triage: it has no student to demote: the teacher answers "
        "already\n"
    )
    append_promotion(db, a_promotion(at=10.0))
    assert understudy("demote", "triage", *how).stdout == (
        "triage: demoted from live: the teacher answers\n"
    )
    refused = understudy("promote", "triage", *how)
    assert "was demoted by support app (demoted by hand); --force brings it back" in refused.stderr
    forced = understudy("promote", "triage", "--force", *how)
    assert "the adapter of run" in forced.stderr  # this scene has no files of the student


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pause", "never", "--key", "first-key"), "has no task never: no request has had"),
        (("pause", "triage"), "wants a key: give one with --key"),
        (("pause", "triage", "--key", "wrong"), "wants a key: give one with --key"),
        (
            ("pause", "triage", "--key", "first-key", "--reason", "x" * 501),
            "did not pause triage: HTTP 422: reason: String should have at most 500 characters",
        ),
    ],
)
@pytest.mark.slow
def test_a_refused_command_shows_the_reason(scene, arguments: tuple[str, ...], said: str) -> None:
    proxy, db = scene
    done = understudy(*arguments, "--server", proxy.url)
    assert done.exit_code == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert actions_of_task(db, "triage") == []


def test_a_command_without_a_server_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    done = understudy("pause", "triage", "--server", url)
    assert done.exit_code == 1
    assert f"no answer from {url}" in done.stderr
    assert "is `understudy serve` running there?" in done.stderr
