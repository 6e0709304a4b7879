"""Signals in processes that tests start, however the tests themselves were started."""

from __future__ import annotations

import signal


def default_signals() -> None:
    """Undoes in a new process what it inherits: `nohup` ignores SIGHUP, a shell's `&` SIGINT."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
