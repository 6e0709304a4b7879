"""Keeps child processes running, replaces them by successors, and stops them in order.

A child that ends is started again, after a delay that grows while it keeps ending. Each child has
a session of its own, so that Ctrl-C in a terminal reaches only the supervisor, which then stops
them stage by stage: with a signal first, killed when they take too long. Nothing else is ever
signalled.

    started beside ──ready──▶ kept running ──replaced──▶ stopping ──▶ ended
          └────not ready, or ended────▶ ended
"""

from __future__ import annotations

import contextlib
import math
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cli.serve.children import Child, ChildSpec, describe_exit, restart_delay

HEALTHY_AFTER_S = 60.0  # a child that ran this long starts with a short delay again
_TICK_S = 0.2
_SOON_S = 0.02


@dataclass(frozen=True, slots=True)
class _Stopping:
    """A child that has to end while the others run on."""

    child: Child
    number: signal.Signals
    grace_s: float  # from the signal until it is killed
    after: Sequence[Child]  # they use it: it gets the signal once they have ended


class Supervisor:
    """Runs `specs`.

    `say` gets a line for each thing that an operator should know. `stop` and `request` may be
    called from a signal handler or from another thread, all else belongs to one thread.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        say: Callable[[str], None],
        delay: Callable[[int], float] = restart_delay,
        healthy_after_s: float = HEALTHY_AFTER_S,
    ) -> None:
        self._children = {spec.name: Child(spec) for spec in specs}
        self._candidates: list[Child] = []
        self._stopping: list[_Stopping] = []
        self._say = say
        self._delay = delay
        self._healthy_after_s = healthy_after_s
        self._stops = 0
        self._requested = False
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    def start(self, name: str) -> None:
        """Starts one child now; `run` starts those that were not started yet."""
        child = self._children[name]
        try:
            child.start()
        except OSError as error:
            self._plan_restart(child, f"could not be started ({error.strerror})")

    def run(
        self,
        on_request: Callable[[], None] = lambda: None,
        on_tick: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Keeps the children running until `stop`, then stops them and returns.

        Calls `on_request` after each `request`, `on_tick` some times a second, and `on_stop` before
        the children get their signal.
        """
        for name, child in list(self._children.items()):
            if child.process is None and child.due_at is None and not self._stops:
                self.start(name)
        while not self._stops:
            self._wait(_TICK_S)
            self._supervise()
            on_tick()
            if self._requested and not self._stops:
                self._requested = False
                on_request()
        on_stop()
        self._stop_all()
        self._wake_read.close()
        self._wake_write.close()

    def stop(self) -> None:
        """Asks for an orderly stop; a second call asks for one without grace."""
        self._stops += 1
        self._wake()

    def request(self) -> None:
        """Has `run` call its `on_request` soon; once for several requests until then."""
        self._requested = True
        self._wake()

    def kill(self, name: str, pid: int, why: str) -> None:
        """Kills a child that hangs, if it is still this process; it is started again then."""
        child = self._children.get(name)
        if child is None or child.process is None or not child.running:
            return
        if child.process.pid == pid:
            self._say(f"{name} {why} and is killed")
            child.kill()
            child.process.wait()

    # ---- replacing children

    def start_beside(
        self, specs: Sequence[ChildSpec], ready: Callable[[], bool], timeout_s: float
    ) -> list[Child] | None:
        """Starts children beside those that run, and returns them once they are ready.

        None, after stopping them, if one of them ends, if they are not ready in time, or if a stop
        was asked for.
        """
        started = [Child(spec) for spec in specs]
        self._candidates += started
        try:
            for child in started:
                child.start()
        except OSError as error:
            self._say(f"{child.spec.name} could not be started ({error.strerror})")
            self.stop_candidates(started)
            return None
        self.wait_until(lambda: ready() or not all(c.running for c in started), timeout_s)
        for child in started:
            if not child.running and child.process is not None:
                self._say(f"{child.spec.name} ended ({describe_exit(child.process.returncode)})")
        if ready() and all(child.running for child in started) and not self._stops:
            return started
        self.stop_candidates(started)
        return None

    def stop_candidates(self, started: Sequence[Child]) -> None:
        """Stops children that `start_beside` started."""
        for child in started:
            self._candidates.remove(child)
            self._stop_child(child, signal.SIGTERM, child.spec.grace_s)

    def replace(
        self,
        started: Sequence[Child],
        names: Sequence[str],
        *,
        number: signal.Signals = signal.SIGTERM,
        grace_s: float | None = None,
        after: Sequence[Child] = (),
    ) -> list[Child]:
        """Keeps the started children running in place of the named ones; returns those.

        The replaced get a signal once all of `after` have ended, and are killed `grace_s` later.
        """
        replaced = []
        for name in names:
            child = self._children.pop(name)
            self._stop_child(
                child, number, child.spec.grace_s if grace_s is None else grace_s, after
            )
            replaced.append(child)
        for child in started:
            self._candidates.remove(child)
            self._children[child.spec.name] = child
        return replaced

    def restart_with(self, name: str, spec: ChildSpec) -> None:
        """Stops a child, then starts another in its place: for what must never run twice."""
        child = self._children.pop(name)
        self._stop_child(child, signal.SIGTERM, child.spec.grace_s)
        self.wait_until(lambda: not child.running, child.spec.grace_s + 5)
        self._children[spec.name] = Child(spec)
        if not self._stops:
            self.start(spec.name)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Supervises the children until the condition holds; False on a timeout or a stop."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self._stops or time.monotonic() >= deadline:
                return False
            self._wait(_SOON_S)
            self._supervise()
        return True

    def _stop_child(
        self, child: Child, number: signal.Signals, grace_s: float, after: Sequence[Child] = ()
    ) -> None:
        self._stopping.append(_Stopping(child, number, grace_s, tuple(after)))
        self._advance_stops()

    # ---- keeping them running

    def _supervise(self) -> None:
        self._advance_stops()
        now = time.monotonic()
        for name, child in self._children.items():
            if self._stops:
                return
            if child.process is not None and not child.running:
                if now - child.started_at >= self._healthy_after_s:
                    child.ends_in_a_row = 0
                ended = describe_exit(child.process.returncode)
                child.process = None
                self._plan_restart(child, f"ended ({ended})")
            elif child.due_at is not None and now >= child.due_at:
                self.start(name)
                if child.running and child.process is not None:
                    self._say(f"{name} is started again (pid {child.process.pid})")
            child.truncate_log()

    def _advance_stops(self) -> None:
        """Signals the stopping children when it is time, kills the late, drops the ended."""
        for one in list(self._stopping):
            child = one.child
            if not child.running:
                self._stopping.remove(one)
            elif child.kill_at is None:
                if not any(other.running for other in one.after):
                    child.terminate(one.number, one.grace_s)
            elif time.monotonic() >= child.kill_at:
                self._say(f"{child.spec.name} did not end within {one.grace_s:g} s and is killed")
                child.kill()
                child.kill_at = math.inf  # it takes a moment to end, and one kill is enough

    def _plan_restart(self, child: Child, what: str) -> None:
        child.ends_in_a_row += 1
        delay = self._delay(child.ends_in_a_row)
        child.due_at = time.monotonic() + delay
        log = f"; its output is in {child.spec.log}" if child.spec.log else ""
        self._say(f"{child.spec.name} {what}, next start in {delay:g} s{log}")

    def _stop_all(self) -> None:
        children = [
            *(one.child for one in self._stopping),
            *self._candidates,
            *self._children.values(),
        ]
        for stage in sorted({child.spec.stage for child in children}):
            of_stage = [child for child in children if child.spec.stage == stage]
            for child in of_stage:
                child.terminate(signal.SIGTERM, child.spec.grace_s)
            for child in of_stage:
                self._wait_for_end(child)

    def _wait_for_end(self, child: Child) -> None:
        assert child.kill_at is not None
        while child.running and self._stops < 2 and time.monotonic() < child.kill_at:
            self._wait(_SOON_S)
        if child.running:
            if self._stops < 2:
                grace = f"{child.spec.grace_s:g}"
                self._say(f"{child.spec.name} did not stop within {grace} s and is killed")
            child.kill()
        if child.process is not None:
            child.process.wait()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake anyway; closed: it has stopped
            self._wake_write.send(b"s")

    def _wait(self, seconds: float) -> None:
        if select.select([self._wake_read], [], [], seconds)[0]:
            self._wake_read.recv(64)
