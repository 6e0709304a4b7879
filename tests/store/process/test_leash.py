"""The leash: a child runs as it would without it, and ends when its parent ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from store.process import leash

CHILD = """
import os, signal, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = """
import subprocess, sys, time
from store.process import leash
subprocess.Popen(leash.command("child", *sys.argv[1:]))
time.sleep(600)
"""
ECHO = """
import os, sys
print(__name__, sys.argv, os.getcwd(), "store.process.leash" in repr(sys.modules["__main__"]))
sys.exit(7)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "echo.py").write_text(ECHO)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait_until_gone(pid: int) -> None:
    while not _gone(pid):  # for as long as the test may take
        time.sleep(0.05)


@pytest.mark.parametrize("manner", ["obedient", "stubborn"])
@pytest.mark.slow
def test_the_child_dies_when_its_parent_is_killed(environment: dict[str, str], manner: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, manner], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert not _gone(child)
    parent.kill()
    parent.wait()
    _wait_until_gone(child)
    parent.stdout.close()


def test_the_child_ends_if_its_parent_died_before_it_started(
    environment: dict[str, str],
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    child = subprocess.Popen(
        [sys.executable, "-m", "store.process.leash", f"--parent={dead.pid}", "child"],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    assert child.wait() == -15


def test_the_module_runs_as_main_with_its_arguments_and_its_exit_code(
    environment: dict[str, str],
) -> None:
    done = subprocess.run(
        leash.command("echo", "--port", "1", "two words"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("__main__ ")
    assert "'--port', '1', 'two words']" in done.stdout


def test_without_a_module_it_prints_its_usage() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "store.process.leash"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("usage: python -m store.process.leash")
