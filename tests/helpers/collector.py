"""A collector as a process: `python -m tests.helpers.collector DATABASE JOURNAL`, until killed."""

from __future__ import annotations

import sys
from pathlib import Path

from distill.collect import collect
from distill.monitor.feedback import feedback_comparisons
from store.database.database import Database
from store.settings.config import StoreSettings


def main(file: Path, journal: Path) -> None:
    """Collects round after round, and judges the feedback that came."""
    with Database(file, StoreSettings()) as db:
        while True:
            print("a round", flush=True)
            collect(db, journal, {})
            feedback_comparisons(db)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
