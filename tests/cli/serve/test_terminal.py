"""SIGHUP with and without a terminal, with real terminals of the kernel's own."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.polite import until
from tests.helpers.signals import default_signals

# writes the meaning of each SIGHUP, until it is killed
LISTENER = """
import signal, sys, time
from cli.serve.terminal import Terminal
terminal = Terminal()
def say(what):
    with open(sys.argv[1], "a") as f:
        f.write(what + "\\n")
signal.signal(signal.SIGHUP, lambda *_: (time.sleep(0.1), say(terminal.hung_up())))
say("up")
for _ in range(600):
    time.sleep(0.1)
    terminal.look()
"""


def start_in_terminal(file: Path, *prefix: str) -> tuple[int, int]:
    """Starts a listener as session leader; its PID and our end of its terminal."""
    pid, end = pty.fork()
    if pid == 0:
        default_signals()
        os.chdir(file.parent)  # nohup writes there
        os.execvp(
            (argv := [*prefix, sys.executable, "-c", LISTENER, str(file)])[0],
            argv,
        )
    return pid, end


def said(file: Path, count: int) -> list[str]:
    until(lambda: file.exists() and len(file.read_text().split()) >= count)
    return file.read_text().split()


@pytest.fixture
def started(tmp_path: Path) -> object:
    pids: list[int] = []

    def start(*prefix: str) -> tuple[int, int, Path]:
        file = tmp_path / "said"
        pid, end = start_in_terminal(file, *prefix)
        pids.append(pid)
        assert said(file, 1) == ["up"]
        return pid, end, file

    yield start
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


Start = Callable[..., tuple[int, int, Path]]


def test_a_terminal_that_closes_stops_what_runs_in_it(started: Start) -> None:
    _, end, file = started()
    os.close(end)
    assert said(file, 2)[1] == "stop"


@pytest.mark.slow
def test_a_signal_while_the_terminal_is_there_is_a_reload(started: Start) -> None:
    pid, end, file = started()
    os.kill(pid, signal.SIGHUP)
    assert said(file, 2)[1] == "reload"
    os.close(end)
    assert said(file, 3)[2] == "stop"


@pytest.mark.slow
def test_under_nohup_a_closing_terminal_means_nothing_and_a_later_signal_a_reload(
    started: Start,
) -> None:
    pid, end, file = started("nohup")
    os.close(end)
    assert said(file, 2)[1] == "nothing"
    time.sleep(2.5)
    os.kill(pid, signal.SIGHUP)
    assert said(file, 3)[2] == "reload"


def test_without_a_terminal_it_is_always_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "said"
    argv = [sys.executable, "-c", LISTENER, str(file)]
    with subprocess.Popen(argv, start_new_session=True) as listener:
        said(file, 1)
        listener.send_signal(signal.SIGHUP)
        assert said(file, 2)[1] == "reload"
        listener.kill()


@pytest.mark.slow
def test_a_disowned_server_reloads_on_a_signal_long_after_its_terminal_closed(
    tmp_path: Path,
) -> None:
    """Its terminal closed without a signal to it (`disown`), so a later signal is an operator's."""
    file = tmp_path / "said"
    # the leader of the session ends once the other is up, and the terminal with it
    script = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setpgid(0, 0)\n"
        "    exec(sys.argv[2])\n"
        "while not os.path.exists(sys.argv[1]):\n"
        "    time.sleep(0.05)\n"
        "os._exit(0)\n"
    )
    argv = [sys.executable, "-c", script, str(file), LISTENER]
    pid, end = pty.fork()
    if pid == 0:
        default_signals()
        os.execvp(argv[0], argv)
    os.waitpid(pid, 0)
    os.close(end)
    said(file, 1)
    listener = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and str(file) in (entry / "cmdline").read_text()
    )
    try:
        time.sleep(3)
        os.kill(listener, signal.SIGHUP)
        assert said(file, 2)[1] == "reload"
    finally:
        os.kill(listener, signal.SIGKILL)
