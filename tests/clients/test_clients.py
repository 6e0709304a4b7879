"""Clients that people use, each as a small script of its own against the running proxy.

Each script runs twice: the teacher answers, then, by routes for the very requests that it made, a
student. What the script prints must be the same. The ones whose packages are not there are left
out; `make test-clients` installs them all.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.clients.standin import AFTER_THE_CALL, ANSWER, CALL, student, teacher
from tests.helpers.serving import CLIENT_KEY, ProxyProcess, settings, student_route, wait_until
from tests.helpers.teacher_server import LoopbackServer

SCRIPTS = Path(__file__).parent / "scripts"
TASK = "triage"
PARSED = json.loads(ANSWER)
NODE_MODULES = os.environ.get("UNDERSTUDY_NODE_MODULES")  # where `make test-clients` has put them

# script → the package that it needs, what it prints, and how many of its answers a student gives
EXPECTED = {
    "openai_chat.py": (
        "openai",
        {"plain": ANSWER, "streamed": ANSWER, "parsed": PARSED, "errors": ["404", "400"]},
        3,
    ),
    "openai_async.py": (
        "openai",
        {"plain": [ANSWER] * 8, "streamed": ANSWER, "parsed": PARSED, "usage": True},
        10,
    ),
    "openai_responses.py": (
        "openai",
        {"plain": ANSWER, "streamed": ANSWER, "parsed": PARSED, "helper": ANSWER},
        4,
    ),
    "openai_tools.py": (
        "openai",
        {"call": CALL, "streamed": CALL, "after": AFTER_THE_CALL, "embedding": [0.25, -0.5]},
        0,
    ),
    "instructor_extract.py": ("instructor", {"by_schema": PARSED, "by_tool": PARSED}, 1),
    "anthropic_messages.py": ("anthropic", {"plain": ANSWER, "streamed": ANSWER}, 2),
    "litellm_sdk.py": (
        "litellm",
        {"plain": ANSWER, "streamed": ANSWER, "async": ANSWER, "parsed": PARSED},
        4,
    ),
    "langchain_chat.py": (
        "langchain_openai",
        {"plain": ANSWER, "streamed": ANSWER, "async": ANSWER, "parsed": PARSED, "call": CALL},
        4,
    ),
    "llm_cli.py": ("llm", {"plain": ANSWER, "streamed": ANSWER, "by_schema": PARSED}, 3),
    "openai_node.mjs": (
        "node",
        {
            "plain": ANSWER,
            "streamed": ANSWER,
            "helper": ANSWER,
            "response": ANSWER,
            "after": AFTER_THE_CALL,
        },
        4,
    ),
}
# these alone run in each test run, and twice in one process
QUICK = ("openai", "anthropic")


def missing(package: str) -> str | None:
    """Why a script cannot run here; None when it can."""
    if package == "node":
        if shutil.which("node") is None:
            return "node is not installed"
        return None if NODE_MODULES else "the npm packages are installed by `make test-clients`"
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    if package not in QUICK and not NODE_MODULES:
        return "runs with `make test-clients`: it takes long"
    return None


# Runs a script once for each line that it is given: what takes long is to import its package.
AGAIN = "import runpy, sys\nfor _ in sys.stdin: runpy.run_path(sys.argv[1], run_name='__main__')"


@contextlib.contextmanager
def runs_of(script: str, proxy: ProxyProcess, folder: Path) -> Iterator[Callable[[], object]]:
    """Gives what a run of the script prints, as JSON, each time that it is called."""
    file = SCRIPTS / script
    environment = {
        **os.environ,
        "BASE_URL": proxy.base_url,
        "API_KEY": CLIENT_KEY,
        "TASK": TASK,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LLM_USER_PATH": str(folder / "llm"),
    }
    if EXPECTED[script][0] not in QUICK:
        command = sys.executable
        if script.endswith(".mjs"):  # where it finds its packages
            command, file = "node", Path(shutil.copy(file, Path(str(NODE_MODULES)).parent))

        def anew() -> object:
            done = subprocess.run(
                [command, str(file)],
                env=environment,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            return json.loads(done.stdout)

        yield anew
        return
    said = folder / "said"
    with (
        said.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-u", "-c", AGAIN, str(file)],
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None

        def again() -> object:
            print(file=process.stdin, flush=True)
            line = process.stdout.readline() if process.stdout else ""
            assert line, said.read_text()[-3000:]
            return json.loads(line)

        try:
            yield again
        finally:
            process.kill()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("script", EXPECTED)
@pytest.mark.slow
def test_a_client_notices_nothing(script: str, tmp_path: Path) -> None:
    package, expected, by_student = EXPECTED[script]
    if reason := missing(package):
        pytest.skip(reason)
    with LoopbackServer(teacher) as at_teacher, LoopbackServer(student) as at_student:
        raw = settings(at_teacher.base_url, tmp_path / "data")
        for name in ("embedder", "claude-sonnet-4-5"):
            params = {**raw["model_list"][0]["litellm_params"], "model": f"openai/{name}"}
            raw["model_list"].append({"model_name": name, "litellm_params": params})
        with ProxyProcess(raw, tmp_path) as proxy, runs_of(script, proxy, tmp_path) as run:
            assert run() == expected
            made = proxy.traces()
            assert made and {t["served_by"] for t in made} <= {"teacher", None}
            assert {t["task"] for t in made} == {TASK}

            answered = [t for t in made if t["served_by"] and t["operation_name"] == "chat"]
            shapes = sorted({t["fingerprint"] for t in answered})
            proxy.publish(
                student_route(
                    TASK, at_student.url, shapes[0], fingerprints=shapes, output="json", share=1.0
                )
            )
            wait_for_route(proxy)
            assert run() == expected
            again = proxy.traces()[len(made) :]
            served = [t for t in again if t["served_by"] == "student"]
            assert len(again) == len(made)
            assert len(served) == by_student, [(t["api"], t["route"], t["reason"]) for t in again]


def wait_for_route(proxy: ProxyProcess) -> None:
    """The proxy looks at its routes four times a second."""
    wait_until(lambda: httpx.get(f"{proxy.url}/health").json()["routes"]["students"] == 1)
