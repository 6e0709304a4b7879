"""`understudy forget` before a running product, and without one: nothing is left in the folder."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from store.database.database import Database
from store.database.promotions import latest_promotions
from store.settings.config import Config, parse_config
from tests.helpers.forget_scene import CANARY, OTHER, TASK, USER, fill_folder, places_of
from tests.helpers.served import Served
from tests.helpers.serving import CLIENT_KEY, settings, wait_until
from tests.helpers.teacher_server import LoopbackServer, Received, Reply, completion, echo

ID = "0196b3c4-0000-7000-8000-000000000001"


def understudy(*arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(app, list(arguments), **more)


def config_of(teacher: LoopbackServer, folder: Path) -> dict[str, Any]:
    """No run and no student is started: their files are prepared."""
    return settings(teacher.base_url, folder / "data", task_defaults={"paused": True})


def ask(client: openai.OpenAI, text: str, user: str) -> str | None:
    answer = client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": text}],
        user=user,
        extra_headers={"X-Understudy-Task": TASK},
    )
    return answer.choices[0].message.content


def slow_for_one(request: Received) -> Reply:
    """The teacher is slow for marked texts."""
    if b"still under way" in request.body:
        return completion(f"{CANARY} at last").slow(4)
    return echo(request)


@pytest.mark.slow
def test_a_user_is_forgotten_while_it_serves(tmp_path: Path) -> None:
    with LoopbackServer(slow_for_one) as teacher, ThreadPoolExecutor(1) as pool:
        raw = config_of(teacher, tmp_path)
        fill_folder(parse_config(raw))
        with Served(tmp_path, {**raw, "server": {"port": 0}}) as served, served.client() as client:
            for number in range(5):  # the proxy is there before the control plane
                assert CANARY in str(ask(client, f"{CANARY} {number}", USER))
                assert OTHER in str(ask(client, f"{OTHER} {number}", "bob"))
            where = ("--server", served.url, "--key", CLIENT_KEY)
            wait_until(lambda: understudy("status", *where).exit_code == 0, within_s=90)
            under_way = pool.submit(ask, client, f"{CANARY} still under way", USER)
            wait_until(lambda: any(b"still under way" in r.body for r in teacher.requests))
            # requests from before the control plane's start are collected later
            look = ("forget", "--user", USER, "--dry-run", *where)
            wait_until(lambda: understudy(*look).stdout.startswith("would forget 1"), within_s=60)
            done = understudy("forget", "--user", USER, "--yes", "--json", *where)
            assert done.exit_code == 0, done.output
            found = json.loads(done.stdout)
            assert found["traces"] == 6 + 5
            assert found["written_anew"]
            assert [(s["task"], s["serving"]) for s in found["students"]] == [(TASK, True)]

            shown = understudy("status", TASK, *where)
            assert "learned from 4 traces and" in " ".join(shown.stdout.split())
            assert "understudy retrain triage" in " ".join(shown.stdout.split())
            assert under_way.result(30) == f"{CANARY} at last"  # the client gets its answer

            def dropped() -> bool:
                told = json.loads(understudy("status", "--json", *where).stdout)
                return told["store"]["forgotten"] > 0 and told["store"]["forgetting"] == 0

            wait_until(dropped, within_s=30)
            assert ask(client, f"{OTHER} goes on", "bob")
        assert CANARY not in served.output
    assert places_of(CANARY, tmp_path / "data") == []
    assert places_of(OTHER, tmp_path / "data")


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[Config, Path]:
    """A data folder without a server, and its config file."""
    entry = {"model_name": "m", "litellm_params": {"model": "openai/m", "api_key": "k"}}
    raw = {"model_list": [entry], "data_dir": str(tmp_path / "data")}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(raw))
    config = parse_config(raw)
    fill_folder(config)
    return config, file


@pytest.mark.slow
def test_without_a_server_the_command_forgets_itself(stopped: tuple[Config, Path]) -> None:
    config, file = stopped
    done = understudy("forget", "--user", USER, "--yes", "--demote", "-c", str(file))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("forgot 6 traces, 6 examples, ")
    assert f"demoted: {TASK}" in done.stdout
    assert places_of(CANARY, config.data_dir) == []
    with Database(config.database_file, config.store) as db:
        assert latest_promotions(db)[TASK].target == "teacher"


@pytest.mark.slow
def test_forget_asks_for_confirmation(stopped: tuple[Config, Path]) -> None:
    config, file = stopped
    refused = understudy("forget", "--user", USER, "-c", str(file))
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    looked = understudy("forget", "--user", USER, "--dry-run", "-c", str(file))
    assert looked.stdout.startswith("would forget 6 traces")
    assert places_of(CANARY, config.data_dir)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say what to forget"),
        (["--trace", "one"], "a UUID"),
        (["--trace", ID, "--before", "2026-01-31"], "goes with"),
        (["--task", TASK, "--before", "tomorrow"], "takes a date"),
    ],
)
@pytest.mark.slow
def test_contradictory_options_are_refused(
    stopped: tuple[Config, Path], options: list[str], said: str
) -> None:
    refused = understudy("forget", *options, "--yes", "-c", str(stopped[1]))
    assert refused.exit_code == 2
    assert said in refused.stderr
