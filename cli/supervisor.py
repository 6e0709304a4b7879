"""Keeps child processes running, and stops them in order.

A child that ends is started again, after a delay that grows while it keeps ending. Each child has
a session of its own, so that Ctrl-C in a terminal reaches only the supervisor, which then stops
them one after the other: told first, killed when it takes too long. Nothing else is ever signalled.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
HEALTHY_AFTER_S = 60.0  # a child that ran this long is forgiven its earlier ends
LOG_LIMIT_BYTES = 8 << 20
_TICK_S = 0.2


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start one child."""

    name: str  # as messages call it
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)  # holds secrets
    pass_fds: Sequence[int] = ()
    cwd: Path | None = None
    log: Path | None = None  # where its output goes; None: where ours goes
    grace_s: float = 10.0  # how long it may take to stop before it is killed


def restart_delay(ends_in_a_row: int) -> float:
    """Seconds until the next start: 0.5, 1, 2… up to 30."""
    return float(min(FIRST_DELAY_S * 2 ** min(ends_in_a_row - 1, 16), LONGEST_DELAY_S))


def how_it_ended(returncode: int) -> str:
    """An exit status in words."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


class _Child:
    """One child's present state."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.ends_in_a_row = 0
        self.due_at: float | None = None  # when to start it again; None: it runs, or never ran

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Runs `specs`; the order of the list is the order in which they are stopped.

    `say` gets one line for each thing that an operator should know. `start` and `run` belong to
    one thread; `stop` may be called from a signal handler or from another thread.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        say: Callable[[str], None],
        delay: Callable[[int], float] = restart_delay,
        healthy_after_s: float = HEALTHY_AFTER_S,
    ) -> None:
        self._children = {spec.name: _Child(spec) for spec in specs}
        self._say = say
        self._delay = delay
        self._healthy_after_s = healthy_after_s
        self._stops = 0
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each child that runs."""
        return {
            name: child.process.pid
            for name, child in self._children.items()
            if child.process is not None and child.running
        }

    def start(self, name: str) -> None:
        """Starts one child now; `run` starts those that were not started yet."""
        child = self._children[name]
        child.started_at = time.monotonic()
        child.due_at = None
        try:
            child.process = _spawn(child.spec)
        except OSError as error:
            child.process = None
            self._plan_restart(child, f"could not be started ({error.strerror})")

    def run(self) -> None:
        """Keeps the children running until `stop`, then stops them and returns."""
        for name, child in self._children.items():
            if child.process is None and child.due_at is None and not self._stops:
                self.start(name)
        while not self._stops:
            self._wait(_TICK_S)
            self._look_after()
        self._stop_all()
        self._wake_read.close()
        self._wake_write.close()

    def stop(self) -> None:
        """Asks for an orderly stop; asked a second time, for one without any grace."""
        self._stops += 1
        with contextlib.suppress(OSError):  # full: it is awake anyway; closed: it has stopped
            self._wake_write.send(b"s")

    def _look_after(self) -> None:
        now = time.monotonic()
        for name, child in self._children.items():
            if self._stops:
                return
            if child.process is not None and not child.running:
                if now - child.started_at >= self._healthy_after_s:
                    child.ends_in_a_row = 0
                ended = how_it_ended(child.process.returncode)
                child.process = None
                self._plan_restart(child, f"ended ({ended})")
            elif child.due_at is not None and now >= child.due_at:
                self.start(name)
                if child.running and child.process is not None:
                    self._say(f"{name} is started again (pid {child.process.pid})")
            _keep_short(child.spec.log)

    def _plan_restart(self, child: _Child, what: str) -> None:
        child.ends_in_a_row += 1
        delay = self._delay(child.ends_in_a_row)
        child.due_at = time.monotonic() + delay
        log = f"; its output is in {child.spec.log}" if child.spec.log else ""
        self._say(f"{child.spec.name} {what}, next start in {delay:g} s{log}")

    def _stop_all(self) -> None:
        for child in self._children.values():
            process = child.process
            if process is None or not child.running:
                continue
            process.terminate()
            deadline = time.monotonic() + child.spec.grace_s
            while child.running and self._stops < 2 and time.monotonic() < deadline:
                self._wait(0.02)
            if child.running:
                if self._stops < 2:
                    grace = f"{child.spec.grace_s:g}"
                    self._say(f"{child.spec.name} did not stop within {grace} s and is killed")
                # its whole group; the leader is not reaped yet, so the number is still its own
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _wait(self, seconds: float) -> None:
        if select.select([self._wake_read], [], [], seconds)[0]:
            self._wake_read.recv(64)


def _spawn(spec: ChildSpec) -> subprocess.Popen[bytes]:
    if spec.log is None:
        output = None
    else:
        # appending, so that the file may be emptied while the child writes
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        output = os.open(spec.log, flags, 0o600)
    try:
        return subprocess.Popen(
            list(spec.argv),
            env=dict(spec.env),
            cwd=spec.cwd,
            pass_fds=tuple(spec.pass_fds),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        if output is not None:
            os.close(output)


def _keep_short(log: Path | None) -> None:
    if log is None:
        return
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_LIMIT_BYTES:
            os.truncate(log, 0)
