"""A process that is killed again and again at its work, while records keep being journalled."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from store.files.journal import JournalWriter
from store.records import Feedback, Trace
from store.settings.config import JournalSettings
from tests.helpers.paths import ROOT

ROUND = b"a round\n"  # what the process prints at the beginning of each round


def kill_9_again_and_again(
    module: str,
    arguments: Sequence[str],
    journal: Path,
    records: Callable[[random.Random], Sequence[Trace | Feedback]],
    *,
    kills: int,
    max_rounds: int,
    seed: int,
) -> None:
    """Runs a module, which works in rounds until it is killed, `kills` times.

    It is killed a random moment after it has begun its first round, its second… up to `max_rounds`,
    in turn. `records` makes what is journalled meanwhile, some times a second, and sealed at once.
    """
    chance, stop = random.Random(seed), threading.Event()

    def traffic() -> None:
        writer = JournalWriter(journal, JournalSettings(segment_seconds=0.02))
        while not stop.is_set():
            for record in records(chance):
                writer.append(record)
            writer.tick()
            time.sleep(0.03)
        writer.close()

    client = threading.Thread(target=traffic)
    client.start()
    try:
        for kill in range(kills):
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            for _ in range(1 + kill % max_rounds):
                assert process.stdout.readline() == ROUND
            time.sleep(chance.uniform(0, 0.35))
            process.kill()
            assert process.wait() == -9
            process.stdout.close()
    finally:
        stop.set()
        client.join()
