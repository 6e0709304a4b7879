"""What a SIGHUP means: that the config is to be read again, or that the terminal is gone.

Whoever changes a server's config sends it by custom (nginx, PostgreSQL, HAProxy). The kernel and
the shell send it when a terminal closes, to what runs in its foreground. So it is about the
terminal when there was one at the start and it has just vanished.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Literal

Meaning = Literal["stop", "reload", "nothing"]
# a terminal that vanished longer ago sends no more: who was spared then lives on without it
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
        # `nohup` has a process ignore the signal: its terminal may close, and it goes on
        self._spared = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
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
        """What a SIGHUP means that came just now."""
        self.look()
        if self._had and self._gone_at is not None:
            return "nothing" if self._spared else "stop"
        return "reload"
