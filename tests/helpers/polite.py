"""Small programs to supervise, and helpers for their tests."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from cli.serve.children import ChildSpec
from cli.serve.supervisor import Supervisor

# writes `NAME start`, then `NAME term` on SIGTERM
POLITE = """
import signal, sys, time
file, name = sys.argv[1:]
def say(what):
    with open(file, "a") as f:
        f.write(f"{name} {what}\\n")
def stop(*_):
    say("term")
    time.sleep(0.3)
    say("end")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
say("start")
while True:
    time.sleep(0.05)
"""
# starts a child of its own, writes its process id, and ignores SIGTERM
DEAF = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1], "a") as f:
    f.write(f"{own.pid}\\n")
while True:
    time.sleep(0.05)
"""


def spec(name: str, script: str, *arguments: object, **more: object) -> ChildSpec:
    argv = [sys.executable, "-c", script, *map(str, arguments)]
    return ChildSpec(name=name, argv=argv, env=dict(os.environ), **more)  # type: ignore[arg-type]


def until(true: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def child_pid(*arguments: str) -> int:
    """The process id of this process's child whose command line ends with these arguments."""
    (found,) = (
        child.pid
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and tuple(child.cmdline()[-len(arguments) :]) == arguments
    )
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # a zombie is dead
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


@contextmanager
def running(
    supervisor: Supervisor, on_request: Callable[[], None] = lambda: None
) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=supervisor.run, args=(on_request,))
    thread.start()
    try:
        yield thread
    finally:
        while thread.is_alive():
            supervisor.stop()
            thread.join(5)
