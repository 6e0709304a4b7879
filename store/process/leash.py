"""Runs a module so that it never outlives the process that started it.

    python -m store.process.leash [--parent=PID] MODULE [ARGUMENT…]

runs MODULE as `python -m MODULE` would, and polls whether the parent still exists. When it has
ended, also by `kill -9`, the process gets SIGTERM, and SIGKILL some seconds later. Polling the
parent's id works on Linux and macOS, and does not end the child when only the *thread* that started
it ends, as Linux's `PR_SET_PDEATHSIG` does.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

POLL_S = 0.5
GRACE_S = 5.0
_PARENT = "--parent="


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs `module` as a child of the calling process, on a leash.

    It names the caller's PID, so that a parent which dies while the child starts is noticed too.
    """
    return [
        sys.executable,
        "-m",
        "store.process.leash",
        f"{_PARENT}{os.getpid()}",
        module,
        *arguments,
    ]


def main(arguments: list[str]) -> None:
    """Runs the module named by the arguments, and ends with its exit status."""
    parent = os.getppid()
    if arguments and arguments[0].startswith(_PARENT):
        parent = int(arguments.pop(0).removeprefix(_PARENT))
    if not arguments:
        sys.exit("usage: python -m store.process.leash [--parent=PID] MODULE [ARGUMENT…]")
    threading.Thread(target=_watch, args=(parent,), name="leash", daemon=True).start()
    module, *rest = arguments
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
