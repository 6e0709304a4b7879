"""`understudy serve` with real processes: crashes, restarts, and a clean end."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.helpers.served import Served
from tests.helpers.serving import TEACHER_KEY, settings, wait_until
from tests.helpers.teacher_server import LoopbackServer

pytestmark = pytest.mark.slow

PROXY, CONTROL_PLANE = "proxy.worker", "distill.control"


def config(teacher: LoopbackServer) -> dict[str, Any]:
    return {"model_list": settings(teacher.base_url, Path("unused"))["model_list"]}


def ask(client: openai.OpenAI, prompt: str = "hello") -> str | None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": prompt}]
    return (
        client.chat.completions.create(model="gpt-4o", messages=messages).choices[0].message.content
    )


def test_serve_stops_every_process_that_it_started(tmp_path: Path, teacher: LoopbackServer) -> None:
    with Served(tmp_path, config(teacher)) as served, served.client() as client:
        assert ask(client) == "echo: hello"
        served.child(CONTROL_PLANE)
        wait_until(lambda: httpx.get(f"{served.url}/distill").status_code == 200, within_s=60)
        page = httpx.get(f"{served.url}/distill/?task=one", follow_redirects=True)
        assert str(page.url) == f"{served.url}/distill?task=one"
        assert page.text == httpx.get(f"{served.url}/distill").text
        assert served.stop() == []
        assert served.process.returncode == 0

    assert "event=stopped" in served.output
    assert "Traceback" not in served.output
    assert TEACHER_KEY not in served.output
    with pytest.raises(openai.APIConnectionError), served.client() as client:
        ask(client)


def test_a_request_during_a_restart_of_the_proxy_waits_for_it(
    tmp_path: Path, teacher: LoopbackServer
) -> None:
    with Served(tmp_path, config(teacher)) as served, served.client() as client:
        assert ask(client) == "echo: hello"
        first = served.child(PROXY)
        first.suspend()  # so that the requests below are surely not answered by this one
        with ThreadPoolExecutor(8) as pool:
            first.send_signal(signal.SIGKILL)
            wait_until(lambda: "proxy ended (killed by SIGKILL)" in served.output)
            answers = list(pool.map(lambda n: ask(client, f"again {n}"), range(8)))

        assert answers == [f"echo: again {n}" for n in range(8)]
        assert served.child(PROXY).pid != first.pid


def test_the_control_plane_may_die_without_any_client_noticing(
    tmp_path: Path, teacher: LoopbackServer
) -> None:
    with Served(tmp_path, config(teacher)) as served, served.client() as client:
        proxy, first = served.child(PROXY), served.child(CONTROL_PLANE)
        first.send_signal(signal.SIGKILL)
        for number in range(20):
            assert ask(client, str(number)) == f"echo: {number}"
        wait_until(lambda: "control plane is started again" in served.output)
        assert served.child(CONTROL_PLANE).pid != first.pid
        assert served.child(PROXY).pid == proxy.pid


def test_nothing_outlives_a_parent_that_was_killed(tmp_path: Path, teacher: LoopbackServer) -> None:
    with Served(tmp_path, config(teacher)) as served, served.client() as client:
        assert ask(client) == "echo: hello"
        children = [served.child(PROXY), served.child(CONTROL_PLANE)]
        served.process.kill()
        _, left = psutil.wait_procs(children, timeout=30)

        assert left == []
    with Served(tmp_path, config(teacher)) as served, served.client() as client:
        assert ask(client) == "echo: hello"  # the folder is free again


def test_a_second_server_on_the_folder_is_refused_and_the_first_stays(
    tmp_path: Path, teacher: LoopbackServer
) -> None:
    with Served(tmp_path, config(teacher)) as served, served.client() as client:
        second = subprocess.run(
            [sys.executable, "-m", "cli", "serve", "--config", str(served.config_file)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

        assert second.returncode == 1
        assert f"PID {served.process.pid}, {served.url}" in second.stderr
        assert ask(client) == "echo: hello"


def test_a_folder_named_like_one_of_our_packages_is_not_imported(
    tmp_path: Path, teacher: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started in a project with a package named `store`, it imports Understudy's."""
    for name in ("proxy", "store", "distill"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)

    with Served(tmp_path, config(teacher)) as served, served.client() as client:
        assert ask(client) == "echo: hello"
        assert "wrong package" not in served.output
