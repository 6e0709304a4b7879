"""One child process: how it is started, its state, how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from store.backoff import backoff_s
from store.files.atomic import make_folder, make_room

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 30.0
MAX_LOG_BYTES = 8 << 20


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
    on_start: Callable[[int], None] | None = None  # is given its process id, at each start
    stage: int = 0  # lower stages are stopped first, those of the same stage together


class Child:
    """One child and its state."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.ends_in_a_row = 0
        self.due_at: float | None = None  # when to start it again; None: it runs, or never ran
        self.kill_at: float | None = None  # when it is killed; None: it got no signal to end yet

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Starts the process. Raises OSError."""
        self.started_at = time.monotonic()
        self.due_at = None
        self.process = None
        self.process = _spawn(self.spec)
        if self.spec.on_start is not None:
            self.spec.on_start(self.process.pid)

    def terminate(self, number: signal.Signals, grace_s: float) -> None:
        """Sends it a signal to end; `kill_at` says when it has to have ended."""
        self.kill_at = time.monotonic() + grace_s
        if self.running and self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kills its whole group, so that nothing it started stays."""
        if self.running and self.process is not None:
            # the leader is not reaped yet, so the number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def truncate_log(self) -> None:
        """Empties the log if it is above MAX_LOG_BYTES."""
        if self.spec.log is None:
            return
        with contextlib.suppress(OSError):
            if self.spec.log.stat().st_size > MAX_LOG_BYTES:
                os.truncate(self.spec.log, 0)


def restart_delay(ends_in_a_row: int) -> float:
    """Seconds until the next start: 0.5, 1, 2… up to 30."""
    return backoff_s(ends_in_a_row, first_s=FIRST_DELAY_S, max_s=MAX_DELAY_S)


def describe_exit(returncode: int) -> str:
    """An exit status in words."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def _spawn(spec: ChildSpec) -> subprocess.Popen[bytes]:
    if spec.log is None:
        output = None
    else:
        # appending, so that the file may be emptied while the child writes
        make_folder(spec.log.parent)
        make_room(spec.log)
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
