"""A worker as a process: how it starts, drains, ends with its parent, and what it logs."""

import json
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack

import httpx
import psutil
import pytest

from store.process.runtime import RETIRE
from tests.helpers.paths import ROOT
from tests.helpers.serving import (
    CLIENT_KEY,
    CONTROL_TOKEN,
    TEACHER_KEY,
    ProxyProcess,
    settings,
    wait_until,
)
from tests.helpers.teacher_server import DROP, completion, error

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "a private matter"}]}


@pytest.fixture
def start(teacher, tmp_path):
    with ExitStack() as stack:

        def go(**overrides):
            raw = settings(teacher.base_url, tmp_path / "data", **overrides)
            return stack.enter_context(ProxyProcess(raw, tmp_path))

        yield go


def post(process, **more):
    return httpx.post(f"{process.base_url}/chat/completions", json={**BODY, **more}, timeout=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_a_worker_drains_before_it_ends(number, start, teacher):
    process = start()
    teacher.answer = lambda request: completion("late").slow(1)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(post(process)))
    asking.start()
    wait_until(lambda: teacher.requests)
    assert process.signal(number) == 0
    asking.join(10)
    assert answers[0].json()["choices"][0]["message"]["content"] == "late"
    [sealed] = process.config.journal_dir.iterdir()
    assert sealed.suffix == ".jsonl"
    assert "Traceback" not in process.log


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, RETIRE])
def test_a_worker_does_not_end_before_its_journal_is_written(number, start):
    """On a full disk, as here where something is in the way, lines are in its memory alone."""
    process = start()
    journal = process.config.journal_dir
    journal.parent.mkdir(parents=True)
    journal.write_text("in the way")
    assert post(process).status_code == 200
    process.process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.process.wait(1)
    journal.unlink()
    assert process.process.wait(30) == 0
    assert len(process.traces()) == 1


@pytest.mark.slow
def test_a_worker_ends_with_its_parent(teacher, tmp_path):
    """A parent that is killed takes nothing along: its worker sees to that itself."""
    with ProxyProcess(settings(teacher.base_url, tmp_path / "data"), tmp_path) as template:
        template.process.kill()
        fd = template.fd
        parent = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import subprocess, sys, time\n"
                f"child = subprocess.Popen([sys.executable, '-m', 'proxy.worker', '--fd', '{fd}'],"
                f" pass_fds=[{fd}])\n"
                "print(child.pid, flush=True)\n"
                "time.sleep(600)",
            ],
            env=template.environment,
            pass_fds=[fd],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert parent.stdout is not None
        with parent.stdout:
            child = psutil.Process(int(parent.stdout.readline()))
        assert post(template).status_code == 200
        parent.kill()
        parent.wait()
        assert child.wait(20) in (0, None)


@pytest.mark.slow
def test_a_worker_says_what_is_wrong_with_its_config(start):
    params = {"model": "openai/gpt-4o", "api_key": "os.environ/UNDERSTUDY_NOT_SET"}
    process = start(model_list=[{"model_name": "gpt-4o", "litellm_params": params}])
    assert process.process.wait(20) == 1
    assert "UNDERSTUDY_NOT_SET" in process.log
    assert "Traceback" not in process.log


@pytest.mark.slow
def test_no_secret_and_no_text_leaks(start, teacher):
    """Neither into the log at its most talkative, nor the teacher's key into the journal."""
    process = start(
        server={"log_level": "debug", "keys": [{"key": CLIENT_KEY, "name": "app"}]},
        teacher={"read_timeout_s": 1},
    )
    headers = {"authorization": f"Bearer {CLIENT_KEY}", "x-understudy-task": "secretive"}
    replies = [completion("a private answer"), error(500, "private trouble"), DROP]
    teacher.script(*replies, completion("a private answer").slow(2), completion("x").broken(1))
    statuses = [
        httpx.post(
            f"{process.base_url}/chat/completions", json=BODY, headers=headers, timeout=30
        ).status_code
        for _ in range(5)
    ]
    assert statuses == [200, 500, 502, 504, 502]
    assert httpx.get(f"{process.url}/distill/status", headers=headers).status_code == 503
    bad = httpx.post(f"{process.base_url}/chat/completions", content=b"private", headers=headers)
    assert bad.status_code == 400
    assert process.signal(signal.SIGTERM) == 0
    for secret in (CLIENT_KEY, TEACHER_KEY, CONTROL_TOKEN, "private"):
        assert secret not in process.log
    journal = process.journal()
    for secret in (CLIENT_KEY, TEACHER_KEY, CONTROL_TOKEN):
        assert secret not in journal
    for request in teacher.requests:
        assert CLIENT_KEY not in repr(request)
    assert len(journal.splitlines()) == 5
    assert json.loads(journal.splitlines()[0])["api_key_hash"]
    lines = process.log.splitlines()
    assert lines and all(line.startswith("time=") and " level=" in line for line in lines)
