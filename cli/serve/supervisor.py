"""Keeps child processes running, replaces them by successors, and stops them in order.

A child that ends is started again, after a delay that grows while it keeps ending. Each child has
a session of its own, so that Ctrl-C in a terminal reaches only the supervisor, which then stops
them stage by stage: told first, killed when they take too long. Nothing else is ever signalled.

    introduced ──ready──▶ kept running ──replaced──▶ leaving ──▶ gone
        └──────not ready, or ended──────▶ gone
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

from cli.serve.children import Child, ChildSpec, how_it_ended, restart_delay

HEALTHY_AFTER_S = 60.0  # a child that ran this long is forgiven its earlier ends
_TICK_S = 0.2
_SOON_S = 0.02


@dataclass(frozen=True, slots=True)
class _Leaving:
    """A child that others have replaced, or are about to."""

    child: Child
    by: signal.Signals  # how it is told
    grace_s: float  # how long it may take then
    after: Sequence[Child]  # it is told when these are gone, since they use it


class Supervisor:
    """Runs `specs`.

    `say` gets one line for each thing that an operator should know. `stop` and `request` may be
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
        self._kept = {spec.name: Child(spec) for spec in specs}
        self._introduced: list[Child] = []
        self._leaving: list[_Leaving] = []
        self._say = say
        self._delay = delay
        self._healthy_after_s = healthy_after_s
        self._stops = 0
        self._requested = False
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each child that is kept running, while it runs."""
        return {
            name: child.process.pid
            for name, child in self._kept.items()
            if child.process is not None and child.running
        }

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stops > 0

    def start(self, name: str) -> None:
        """Starts one child now; `run` starts those that were not started yet."""
        child = self._kept[name]
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
        the children are told.
        """
        for name, child in list(self._kept.items()):
            if child.process is None and child.due_at is None and not self._stops:
                self.start(name)
        while not self._stops:
            self._wait(_TICK_S)
            self._look_after()
            on_tick()
            if self._requested and not self._stops:
                self._requested = False
                on_request()
        on_stop()
        self._stop_all()
        self._wake_read.close()
        self._wake_write.close()

    def stop(self) -> None:
        """Asks for an orderly stop; asked a second time, for one without any grace."""
        self._stops += 1
        self._wake()

    def request(self) -> None:
        """Has `run` call its `on_request` soon; once for several requests until then."""
        self._requested = True
        self._wake()

    # ---- one in another's place

    def introduce(
        self, specs: Sequence[ChildSpec], ready: Callable[[], bool], at_most_s: float
    ) -> list[Child] | None:
        """Starts children beside those that run, and gives them once they are ready.

        None, with them stopped, when one of them ends, when they are not ready in time, or when a
        stop was asked for.
        """
        newcomers = [Child(spec) for spec in specs]
        self._introduced += newcomers
        try:
            for child in newcomers:
                child.start()
        except OSError as error:
            self._say(f"{child.spec.name} could not be started ({error.strerror})")
            self.dismiss(newcomers)
            return None
        self.wait_until(lambda: ready() or not all(c.running for c in newcomers), at_most_s)
        for child in newcomers:
            if not child.running and child.process is not None:
                self._say(f"{child.spec.name} ended ({how_it_ended(child.process.returncode)})")
        if ready() and all(child.running for child in newcomers) and not self._stops:
            return newcomers
        self.dismiss(newcomers)
        return None

    def dismiss(self, newcomers: Sequence[Child]) -> None:
        """Stops children that were introduced."""
        for child in newcomers:
            self._introduced.remove(child)
            self._leave(child, signal.SIGTERM, child.spec.grace_s)

    def take_over(
        self,
        newcomers: Sequence[Child],
        replaced: Sequence[str],
        *,
        by: signal.Signals = signal.SIGTERM,
        grace_s: float | None = None,
        after: Sequence[Child] = (),
    ) -> list[Child]:
        """Keeps the newcomers running, and tells those that they replace to end; gives these.

        They are told `by` a signal, once all of `after` are gone, and killed `grace_s` later.
        """
        leaving = []
        for name in replaced:
            child = self._kept.pop(name)
            self._leave(child, by, child.spec.grace_s if grace_s is None else grace_s, after)
            leaving.append(child)
        for child in newcomers:
            self._introduced.remove(child)
            self._kept[child.spec.name] = child
        return leaving

    def exchange(self, name: str, spec: ChildSpec) -> None:
        """Stops a child and then starts another in its place: there can be but one of them."""
        child = self._kept.pop(name)
        self._leave(child, signal.SIGTERM, child.spec.grace_s)
        self.wait_until(lambda: not child.running, child.spec.grace_s + 5)
        self._kept[spec.name] = Child(spec)
        if not self._stops:
            self.start(spec.name)

    def wait_until(self, true: Callable[[], bool], at_most_s: float) -> bool:
        """Looks after the children until it is true; False when it is not in time, or on a stop."""
        deadline = time.monotonic() + at_most_s
        while not true():
            if self._stops or time.monotonic() >= deadline:
                return False
            self._wait(_SOON_S)
            self._look_after()
        return True

    def _leave(
        self, child: Child, by: signal.Signals, grace_s: float, after: Sequence[Child] = ()
    ) -> None:
        self._leaving.append(_Leaving(child, by, grace_s, tuple(after)))
        self._see_off()

    # ---- looking after them

    def _look_after(self) -> None:
        self._see_off()
        now = time.monotonic()
        for name, child in self._kept.items():
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
            child.keep_log_short()

    def _see_off(self) -> None:
        """Tells those that leave when it is time, kills the late, and forgets the gone."""
        for one in list(self._leaving):
            child = one.child
            if not child.running:
                self._leaving.remove(one)
            elif child.kill_at is None:
                if not any(other.running for other in one.after):
                    child.tell(one.by, one.grace_s)
            elif time.monotonic() >= child.kill_at:
                self._say(f"{child.spec.name} did not end within {one.grace_s:g} s and is killed")
                child.kill()
                child.kill_at = math.inf  # it takes a moment to be gone, and once is enough

    def _plan_restart(self, child: Child, what: str) -> None:
        child.ends_in_a_row += 1
        delay = self._delay(child.ends_in_a_row)
        child.due_at = time.monotonic() + delay
        log = f"; its output is in {child.spec.log}" if child.spec.log else ""
        self._say(f"{child.spec.name} {what}, next start in {delay:g} s{log}")

    def _stop_all(self) -> None:
        there = [*(one.child for one in self._leaving), *self._introduced, *self._kept.values()]
        for stage in sorted({child.spec.stage for child in there}):
            of_stage = [child for child in there if child.spec.stage == stage]
            for child in of_stage:
                child.tell(signal.SIGTERM, child.spec.grace_s)
            for child in of_stage:
                self._see_to_the_end(child)

    def _see_to_the_end(self, child: Child) -> None:
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
