"""`understudy serve` reads its config again: only the changes are noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from store.errors import ConfigError, ProductError
from tests.helpers.load import Load, stored, streamed
from tests.helpers.reloaded import CONTROL_PLANE, PROXY, Reloaded
from tests.helpers.serving import CLIENT_KEY, settings, wait_until
from tests.helpers.teacher_server import LoopbackServer, Received, Reply, echo, stream

pytestmark = pytest.mark.slow


@pytest.fixture
def served(tmp_path: Path, teacher: LoopbackServer) -> Iterator[Reloaded]:
    raw = settings(teacher.base_url, Path("unused"))
    server = {"port": 0, "body_limit_mb": 1, "drain_s": 0}
    with Reloaded(tmp_path, {"model_list": raw["model_list"], "server": server}) as running:
        running.child(CONTROL_PLANE)
        yield running


def test_reloads_under_load_drop_no_request(served: Reloaded, teacher: LoopbackServer) -> None:
    """Not one request is dropped, plain or streamed, and each trace is there once.

    A stream outlives the worker's replacement, though none is given time to drain at a stop.
    """
    replaced = threading.Event()

    def answer(request: Received) -> Reply:
        counting = request.json["messages"][-1]["content"] == "count"
        return stream("one two three four five six").held(replaced) if counting else echo(request)

    teacher.answer = answer
    with Load(served, threads=3) as load, served.client() as client:
        load.wait_for(20)
        chunks = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "count"}], stream=True
        )
        said = [next(chunks).choices[0].delta.content]
        for server, count in (
            ({"body_limit_mb": 3}, 1),
            ({"workers": 2}, 2),
            ({"drain_s": 3}, 2),
            ({"workers": 1}, 1),
        ):
            before = served.pids(PROXY)
            served.change(server=server)
            assert f"server.{next(iter(server))} changed" in served.reload()
            if not replaced.is_set():
                assert served.limit_mb() == 3
                assert served.pids(PROXY) > before  # the old one still talks
                replaced.set()
                said += [c.choices[0].delta.content for c in chunks if c.choices]
                assert "".join(text or "" for text in said) == "one two three four five six"
            load.wait_for(40)
            wait_until(lambda: not served.pids(PROXY) & before)  # noqa: B023
            assert len(served.pids(PROXY)) == count
        assert streamed(client, "the end")[1] == "echo: the end"

    assert load.errors == []
    assert served.stop() == []
    traces = Counter(stored(served))
    assert max(traces.values()) == 1
    assert set(load.answers) <= traces.keys()
    assert len(traces) == len(load.answers) + 2


def test_new_keys_hold_for_connections_after_the_reload(served: Reloaded) -> None:
    served.change(server={"keys": [{"key": CLIENT_KEY, "name": "app"}]})
    assert served.reload().startswith("server.keys changed: a new proxy, in ")
    for _ in range(20):  # new connections, none of which the old one may take
        with pytest.raises(openai.AuthenticationError), served.client() as client:
            client.with_options(api_key="sk-another").models.list()
    with served.client() as client:
        client.models.list()
    assert CLIENT_KEY not in served.output


def test_a_config_with_a_fault_changes_nothing(served: Reloaded) -> None:
    """And children that crash afterwards come back with the old config."""
    served.change(server={"body_limit_mb": 2})
    assert "server.body_limit_mb changed" in served.reload()
    wait_until(lambda: len(served.pids(PROXY)) == 1)
    proxies, control = served.pids(PROXY), served.pids(CONTROL_PLANE)
    good = served.config_file.read_text()
    keyless = settings("http://127.0.0.1:9/v1", Path("unused"))["model_list"]
    keyless[0]["litellm_params"]["api_key"] = "os.environ/UNDERSTUDY_NO_SUCH_KEY"
    refused: tuple[tuple[dict[str, Any], type[Exception], list[str]], ...] = (
        ({"server": {"wrkers": 2, "body_limit_mb": 3}}, ConfigError, ["server.wrkers"]),
        (
            {"server": {"port": 4999, "body_limit_mb": 3}},
            ConfigError,
            ["server.port cannot change while it runs"],
        ),
        # named, and not shown
        ({"model_list": keyless}, ConfigError, ["UNDERSTUDY_NO_SUCH_KEY is not set"]),
        ({"data_dir": None, "model_list": []}, ProductError, ["no understudy serves from"]),
        # all faults, not the first alone
        (
            {"server": {"body_limit_mb": -1, "log_level": "loud"}},
            ConfigError,
            ["server.body_limit_mb", "server.log_level"],
        ),
    )
    for blocks, error, said in refused:
        served.change(**blocks)
        with pytest.raises(error) as caught:
            served.reload()
        assert all(part in str(caught.value) for part in said)
        served.config_file.write_text(good)
    served.change(retention={"retrain_marked": False})
    assert served.reload() == "nothing has changed"
    assert served.output.count("retention.retrain_marked is now called") == 1
    served.config_file.write_text("model_list: [")
    done = served.run_reload()
    assert done.returncode == 2
    assert "not valid YAML" in done.stderr
    served.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload refused" in served.output and "not valid YAML" in served.output)
    assert served.output.count("the old config goes on") >= 4
    assert (served.pids(PROXY), served.pids(CONTROL_PLANE)) == (proxies, control)
    assert served.limit_mb() == 2

    for module in (PROXY, CONTROL_PLANE):
        [pid] = served.pids(module)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: served.pids(module) - {pid}, within_s=60)  # noqa: B023
    assert served.limit_mb() == 2
    wait_until(lambda: httpx.get(f"{served.url}/distill/status").status_code == 200, within_s=60)
    # the copy may hold secrets, so only its owner may read it
    copies = list((served.data_dir / "accepted").iterdir())
    assert {copy.stat().st_mode & 0o777 for copy in copies} == {0o600}
    assert len(copies) == 2  # the control plane has not changed since the first


def test_the_control_plane_is_replaced_under_load(served: Reloaded) -> None:
    """When its settings have changed; and nothing is replaced for the same config."""
    proxies, control = served.pids(PROXY), served.pids(CONTROL_PLANE)
    assert served.run_reload().stdout == "nothing has changed\n"
    assert (served.pids(PROXY), served.pids(CONTROL_PLANE)) == (proxies, control)

    with Load(served, threads=2) as load:
        for seconds in (3, 4):
            served.change(scheduler={"due_seconds": seconds}, task_defaults={"cooldown_s": seconds})
            said = served.reload()
            changed = "scheduler.due_seconds, task_defaults.cooldown_s"
            assert f"{changed} changed: a new control plane" in said
            assert not served.pids(CONTROL_PLANE) & control
            control = served.pids(CONTROL_PLANE)
            load.wait_for(50)
        wait_until(
            lambda: httpx.get(f"{served.url}/distill/status").status_code == 200, within_s=60
        )
    assert load.errors == []
    assert served.pids(PROXY) == proxies
    assert served.stop() == []
    traces = Counter(stored(served))
    assert max(traces.values()) == 1
    assert sorted(traces) == sorted(load.answers)


def test_a_stop_during_a_reload_stops_everything(served: Reloaded) -> None:
    served.change(server={"body_limit_mb": 2, "workers": 2})
    served.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(served.pids(PROXY)) > 1)
    assert served.stop() == []
    assert served.process.returncode == 0


def test_reload_without_a_server_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"data_dir": str(tmp_path / "data")}))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "reload", "--config", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"no understudy serves from {tmp_path / 'data'}" in done.stderr
