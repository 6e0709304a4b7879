"""What a SIGHUP means: read the config again, or the terminal has closed.

Operators send it for a reload, as with nginx, PostgreSQL and HAProxy. The kernel and the shell send
it to foreground processes when a terminal closes: so if there was a terminal at the start and it
has just gone, it means that.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Literal

Meaning = Literal["stop", "reload", "nothing"]
# a terminal that closed longer ago sends no signal any more
_WINDOW_S = 2.0


def has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Terminal:
    """The terminal that `serve` was started in, if any."""

    def __init__(self) -> None:
        self._had = has_terminal()
        # under `nohup`, which ignores the signal, a closed terminal means nothing
        self._nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._gone_at: float | None = None

    def look(self) -> None:
        """To be called some times a second: notices a terminal that vanishes without a signal."""
        if not self._had or has_terminal():
            return
        if self._gone_at is None:
            self._gone_at = time.monotonic()
        elif time.monotonic() - self._gone_at > _WINDOW_S:
            self._had = False

    def hung_up(self) -> Meaning:
        """The meaning of a SIGHUP that has just come."""
        self.look()
        if self._had and self._gone_at is not None:
            return "nothing" if self._nohup else "stop"
        return "reload"
