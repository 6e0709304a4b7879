"""The workers' shared page, by which the least busy one takes a new connection."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from store.process.workers import SILENT_AFTER_S, Roster
from tests.helpers.paths import ROOT


@pytest.fixture
def roster() -> Iterator[Roster]:
    page = Roster.create(3)
    yield page
    page.close()


def test_no_worker_is_alive_at_first(roster: Roster) -> None:
    assert [w.alive for w in roster] == [False] * 3
    assert roster.fewest(but=0) == float("inf")


def test_the_least_busy_living_worker_counts(roster: Roster) -> None:
    for worker, connections in enumerate((5, 7, 3)):
        roster.beat(worker, connections)
    assert [roster.fewest(but=worker) for worker in range(3)] == [3, 3, 5]
    roster.leave(2)
    assert [roster.fewest(but=worker) for worker in range(3)] == [7, 5, 5]
    roster.connected(1, 4)
    assert roster.fewest(but=0) == 4


@pytest.mark.slow
def test_a_worker_without_a_heartbeat_for_a_second_is_not_alive(roster: Roster) -> None:
    roster.beat(1, 0)
    assert roster.alive(1)
    time.sleep(SILENT_AFTER_S + 0.1)
    assert not roster.alive(1)
    assert roster.fewest(but=0) == float("inf")


def test_another_process_reads_the_same_page(roster: Roster) -> None:
    script = (
        "import sys\n"
        "from store.process.workers import Roster\n"
        "page = Roster(int(sys.argv[1]), 3)\n"
        "page.beat(2, 41)\n"
        "page.journal(2, ok=True, backlog=7, lost=3)\n"
        "print(*(w.connections for w in page))\n"
    )
    roster.beat(0, 12)
    done = subprocess.run(
        [sys.executable, "-c", script, str(roster.fd)],
        pass_fds=[roster.fd],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == "12 0 41\n"
    theirs = list(roster)[2]
    assert theirs.alive and theirs.journal_ok
    assert (theirs.connections, theirs.backlog, theirs.lost) == (41, 7, 3)
