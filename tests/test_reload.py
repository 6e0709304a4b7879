"""`understudy serve` reads its config again: nobody notices but by what has changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
import yaml
from load import Load, stored, streamed
from served import Served
from serving import CLIENT_KEY, settings, wait_until
from teacher_server import LoopbackServer, Received, Reply, echo, stream

pytestmark = pytest.mark.slow

PROXY, CONTROL_PLANE = "proxy.server", "distill.control"


class Reloaded(Served):
    """A server whose config changes."""

    def change(self, **blocks: Any) -> None:
        """Writes blocks of the config anew; None takes one out."""
        raw = yaml.safe_load(self.config_file.read_text())
        for name, block in blocks.items():
            raw[name] = {**raw.get(name, {}), **block} if isinstance(block, dict) else block
        self.config_file.write_text(yaml.safe_dump({k: v for k, v in raw.items() if v is not None}))

    def reload(self) -> subprocess.CompletedProcess[str]:
        """`understudy reload`."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "cli", "reload", "--config", str(self.config_file)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def pids(self, module: str) -> set[int]:
        """The children that run this module now."""
        found = set()
        for child in self.process.children():
            try:
                if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    found.add(child.pid)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found

    def limit_mb(self) -> float:
        """server.body_limit_mb, as clients find it to be."""
        for limit in (1, 2, 3, 4):
            content = b" " * (limit * 1024 * 1024 - 100)
            url = f"{self.url}/v1/chat/completions"
            if httpx.post(url, content=content, timeout=30).status_code == 413:
                return limit - 1
        return 4


@pytest.fixture
def served(tmp_path: Path, teacher: LoopbackServer) -> Iterator[Reloaded]:
    raw = settings(teacher.base_url, Path("unused"))
    server = {"port": 0, "body_limit_mb": 1}
    with Reloaded(tmp_path, {"model_list": raw["model_list"], "server": server}) as running:
        running.child(CONTROL_PLANE)
        yield running


def test_steady_load_over_several_reloads(served: Reloaded, teacher: LoopbackServer) -> None:
    """Not one request is dropped, plain or streamed, and each trace is there once."""
    slowed: list[Received] = []

    def one_slow_stream(request: Received) -> Reply:
        """An echo; of the first that is streamed, slower than a replacement."""
        if slowed or not request.json.get("stream"):
            return echo(request)
        slowed.append(request)
        return echo(request).paced(1.0)

    with Load(served, threads=4) as load, served.client() as client:
        wait_until(lambda: len(load.answers) > 50)
        for number, (server, count) in enumerate(
            [
                ({"body_limit_mb": 2}, 1),
                ({"workers": 2}, 2),
                ({"drain_s": 3}, 2),
                ({"workers": 1}, 1),
            ]
        ):
            before, so_far = served.pids(PROXY), len(load.answers)
            served.change(server=server)
            done = served.reload()
            assert done.returncode == 0, done.stderr
            assert f"server.{next(iter(server))} changed" in done.stdout
            if number == 0:  # a stream that takes longer than the replacement
                teacher.answer = one_slow_stream
            wait_until(lambda: len(load.answers) > so_far + 100)  # noqa: B023  (called at once)
            wait_until(lambda: not served.pids(PROXY) & before)  # noqa: B023
            assert len(served.pids(PROXY)) == count
        assert streamed(client, "the end")[1] == "echo: the end"

    assert slowed and load.errors == []
    assert served.stop() == []
    traces = Counter(stored(served))
    assert max(traces.values()) == 1
    assert set(load.answers) <= traces.keys()
    assert len(traces) == len(load.answers) + 1


def test_a_long_stream_outlives_its_worker_s_replacement(
    served: Reloaded, teacher: LoopbackServer
) -> None:
    served.change(server={"drain_s": 0})
    assert served.reload().returncode == 0
    teacher.script(stream("one two three four five six").paced(0.7))
    with served.client() as client:
        chunks = client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "count"}], stream=True
        )
        said = [next(chunks).choices[0].delta.content]
        before = served.pids(PROXY)
        served.change(server={"body_limit_mb": 3})
        assert served.reload().returncode == 0
        assert served.limit_mb() == 3
        assert served.pids(PROXY) > before  # the old one still talks
        said += [c.choices[0].delta.content for c in chunks if c.choices]
    assert "".join(text or "" for text in said) == "one two three four five six"
    wait_until(lambda: not served.pids(PROXY) & before)


def test_keys_change_for_everybody_who_comes_then(served: Reloaded) -> None:
    served.change(server={"keys": [{"key": CLIENT_KEY, "name": "app"}]})
    assert served.reload().stdout.startswith("server.keys changed: a new proxy, in ")
    with served.client() as client:
        client.models.list()
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="sk-another").models.list()
    assert CLIENT_KEY not in served.output


def test_what_cannot_be_used_is_refused_whole(served: Reloaded) -> None:
    proxies, control = served.pids(PROXY), served.pids(CONTROL_PLANE)
    good = served.config_file.read_text()
    for blocks, said in (
        ({"server": {"wrkers": 2, "body_limit_mb": 3}}, "server.wrkers"),
        ({"server": {"body_limit_mb": -1, "log_level": "loud"}}, "server.body_limit_mb"),
        ({"server": {"port": 4999, "body_limit_mb": 3}}, "server.port cannot change while it runs"),
        ({"data_dir": None, "model_list": []}, "no understudy serves from"),
    ):
        served.change(**blocks)
        refused = served.reload()
        assert refused.returncode == (1 if "no understudy" in said else 2)
        assert said in refused.stderr
        served.config_file.write_text(good)
    served.change(server={"body_limit_mb": -1, "log_level": "loud"})
    assert "server.log_level" in served.reload().stderr  # all faults, not the first alone
    served.config_file.write_text("model_list: [")
    assert "not valid YAML" in served.reload().stderr
    served.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload refused" in served.output and "not valid YAML" in served.output)
    assert served.output.count("the old config goes on") >= 4
    assert (served.pids(PROXY), served.pids(CONTROL_PLANE)) == (proxies, control)
    assert served.limit_mb() == 1


def test_a_key_that_is_not_there_is_named_and_not_shown(served: Reloaded) -> None:
    entry = settings("http://127.0.0.1:9/v1", Path("unused"))["model_list"][0]
    entry["litellm_params"]["api_key"] = "os.environ/UNDERSTUDY_NO_SUCH_KEY"
    served.change(model_list=[entry])
    refused = served.reload()
    assert refused.returncode == 2
    assert "UNDERSTUDY_NO_SUCH_KEY is not set" in refused.stderr


def test_a_child_that_crashes_after_a_refusal_comes_back_as_it_was(served: Reloaded) -> None:
    served.change(server={"body_limit_mb": 2})
    assert served.reload().returncode == 0
    served.config_file.write_text("broken: [")
    assert served.reload().returncode == 2
    for module in (PROXY, CONTROL_PLANE):
        [pid] = wait_until(lambda: len(p := served.pids(module)) == 1 and p)  # noqa: B023
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: served.pids(module) - {pid}, within_s=60)  # noqa: B023
    assert served.limit_mb() == 2
    wait_until(lambda: httpx.get(f"{served.url}/distill/status").status_code == 200, within_s=60)
    # the copy has what the config has, so it is its owner's alone
    copies = list((served.data_dir / "accepted").iterdir())
    assert {copy.stat().st_mode & 0o777 for copy in copies} == {0o600}
    assert len(copies) == 2  # the control plane has not changed since the first


def test_nothing_that_has_not_changed_is_restarted(served: Reloaded) -> None:
    proxies, control = served.pids(PROXY), served.pids(CONTROL_PLANE)
    assert served.reload().stdout == "nothing has changed\n"
    assert (served.pids(PROXY), served.pids(CONTROL_PLANE)) == (proxies, control)

    served.change(scheduler={"due_seconds": 3}, task_defaults={"min_traces": 77})
    said = served.reload().stdout
    assert "scheduler.due_seconds, task_defaults.min_traces changed: a new control plane" in said
    assert served.pids(PROXY) == proxies
    assert not served.pids(CONTROL_PLANE) & control


def test_the_control_plane_is_replaced_under_load(served: Reloaded) -> None:
    with Load(served, threads=3) as load:
        for seconds in (3, 4):
            served.change(scheduler={"due_seconds": seconds})
            assert served.reload().returncode == 0
            so_far = len(load.answers)
            wait_until(lambda: len(load.answers) > so_far + 50)  # noqa: B023  (called at once)
        wait_until(
            lambda: httpx.get(f"{served.url}/distill/status").status_code == 200, within_s=60
        )
    assert load.errors == []
    assert served.stop() == []
    traces = Counter(stored(served))
    assert max(traces.values()) == 1
    assert sorted(traces) == sorted(load.answers)


def test_litellm_comes_and_goes_without_anybody_waiting(
    served: Reloaded, teacher: LoopbackServer
) -> None:
    direct = yaml.safe_load(served.config_file.read_text())["model_list"]
    through = {"model": "hosted_vllm/far", "api_base": teacher.base_url, "api_key": "sk-teacher"}
    with Load(served, threads=2) as load, served.client() as client:
        served.change(model_list=[*direct, {"model_name": "far", "litellm_params": through}])
        done = served.reload()
        assert "a new proxy, a new control plane, a new LiteLLM" in done.stdout, done.stderr
        answer = client.chat.completions.create(
            model="far", messages=[{"role": "user", "content": "through LiteLLM"}]
        )
        assert answer.choices[0].message.content == "echo: through LiteLLM"
        assert served.pids("litellm.proxy.proxy_cli")
        served.change(model_list=direct)
        assert "no LiteLLM" in served.reload().stdout
        wait_until(lambda: not served.pids("litellm.proxy.proxy_cli"), within_s=60)
        so_far = len(load.answers)
        wait_until(lambda: len(load.answers) > so_far + 20)
    assert load.errors == []


def test_a_stop_during_a_reload_stops_everything(served: Reloaded) -> None:
    served.change(server={"body_limit_mb": 2, "workers": 2})
    served.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(served.pids(PROXY)) > 1)
    assert served.stop() == []
    assert served.process.returncode == 0


def test_reload_without_a_server_says_so(tmp_path: Path) -> None:
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
