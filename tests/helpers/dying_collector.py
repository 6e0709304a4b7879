"""Journals and collects, and is killed at a call into C: `python -m tests.helpers.dying_collector`.

One process that has imported everything forks one for each line `LEFT FOLDER` of its input, which
kills itself after so many calls into C from our files, system calls and DuckDB's among them. What
was acknowledged stands in FOLDER/acknowledged. The exit status is printed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from distill.collect import collect
from store.database.database import Database
from store.files.journal import JournalWriter
from store.files.kept import KeptSegments
from store.settings.config import JournalSettings, StoreSettings
from tests.helpers.paths import ROOT
from tests.helpers.samples import a_trace

OURS = tuple(f"{ROOT / name}/" for name in ("distill", "store"))


def work(folder: Path) -> None:
    """Journals some traces, and collects all that is there."""
    acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    journal = folder / "journal"
    writer = JournalWriter(journal, JournalSettings(segment_mb=0.001))
    for _ in range(4):
        trace = a_trace()
        writer.append(trace)
        os.write(acknowledged, f"{trace.trace_id}\n".encode())
        writer.tick()
    writer.close()
    kept = KeptSegments(journal, days=3, megabytes=100)
    with Database(folder / "understudy.duckdb", StoreSettings()) as db:
        collect(db, journal, {}, kept)


def work_and_die(folder: Path, left: int) -> None:
    """The same, killed before the call into C that comes after `left` others."""

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal left
        if event == "c_call" and frame.f_code.co_filename.startswith(OURS):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    work(folder)
    sys.setprofile(None)


def main() -> None:
    """Serves the lines of its input."""
    for line in sys.stdin:
        left, folder = line.rstrip().split(" ", 1)
        if not (child := os.fork()):
            work_and_die(Path(folder), int(left))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
