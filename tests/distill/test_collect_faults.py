"""Collecting while things fail: killed, on a full disk, among other threads."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from distill.collect import collect
from store.database.database import Database
from store.database.promotions import append_promotion
from store.database.statistics import task_statistics
from store.database.traces import task_counts, teacher_answers
from store.errors import StoreError
from store.files.kept import KeptSegments
from store.records import Trace
from store.settings.config import StoreSettings
from tests.helpers.killed import kill_9_again_and_again
from tests.helpers.paths import ROOT
from tests.helpers.samples import a_promotion, a_trace, write_segment

EVERY = 61  # of the calls into C at which it is killed
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def ids(db: Database) -> list[str]:
    """The ids of all traces, of every task that was seen."""
    rows = [r for task in task_counts(db) for r in teacher_answers(db, task, 10**9)]
    return [row.trace_id for row in rows]


def test_a_segment_that_another_thread_is_collecting_is_collected_once(
    db: Database, journal: Path
) -> None:
    """As after a stop: the thread of a cancelled caller is at work when the last round begins."""
    write_segment(journal, *(a_trace() for _ in range(5)))
    [segment] = journal.glob("*.jsonl")
    content, results = segment.read_bytes(), []
    other = threading.Thread(target=lambda: results.append(collect(db, journal, {})))
    with db.transaction():  # other writers wait
        results.append(collect(db, journal, {}))
        segment.write_bytes(content)
        other.start()
        time.sleep(0.1)  # lets the other come as far as it can
    other.join()
    assert [one.traces for one in results] == [5, 0]
    assert len(ids(db)) == 5


@pytest.mark.slow
def test_kill_9_of_the_collector_loses_no_trace_and_doubles_none(tmp_path: Path) -> None:
    """Twelve collectors are killed one after the other while traces keep coming."""
    file, journal = tmp_path / "data" / "understudy.duckdb", tmp_path / "journal"
    expected = []

    def traces(_: random.Random) -> list[Trace]:
        found = [a_trace(input_messages="x" * 4_000) for _ in range(10)]
        expected.extend(trace.trace_id for trace in found)
        return found

    arguments = [str(file), str(journal)]
    kill_9_again_and_again(
        "tests.helpers.collector", arguments, journal, traces, kills=12, max_rounds=2, seed=3
    )
    with Database(file, StoreSettings()) as db:
        before = len(ids(db))
        collect(db, journal, {})
        found = ids(db)
    assert before > 0  # the killed ones did collect
    assert len(found) == len(set(found))
    assert set(found) == set(expected)
    assert list(journal.iterdir()) == []


def a_journal(folder: Path) -> set[str]:
    """A data folder with something of each kind to collect; the ids of its traces."""
    journal = folder / "journal"
    sealed, torn, orphan = ([a_trace() for _ in range(3)] for _ in range(3))
    write_segment(journal, *sealed)
    [first] = journal.glob("*.jsonl")
    write_segment(journal, *torn)
    [second] = set(journal.glob("*.jsonl")) - {first}
    second.write_bytes(second.read_bytes() + b'{"trace_id": "to')
    write_segment(journal, *orphan)
    [third] = set(journal.glob("*.jsonl")) - {first, second}
    third.rename(third.with_suffix(".open"))  # its writer is dead
    (journal / "odd.jsonl").mkdir()
    return {trace.trace_id for trace in (*sealed, *torn, *orphan)}


@pytest.mark.slow
def test_killed_at_any_call_nothing_journalled_is_lost_or_doubled(tmp_path: Path) -> None:
    """While it creates, writes and seals segments; adopts, reads, commits, copies, deletes them."""
    template = tmp_path / "template"
    before, ended, acknowledged_by = a_journal(template), list[int](), set[int]()
    command = [sys.executable, "-m", "tests.helpers.dying_collector"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as victims:
        assert victims.stdin is not None and victims.stdout is not None
        for left in range(0, 10_000, EVERY):
            folder = tmp_path / str(left)
            shutil.copytree(template, folder)
            print(left, folder, file=victims.stdin, flush=True)
            ended.append(int(victims.stdout.readline()))
            acknowledged = (folder / "acknowledged").read_text().split()
            acknowledged_by.add(len(acknowledged))
            journal = folder / "journal"
            kept = KeptSegments(journal, days=3, megabytes=100)
            with Database(folder / "understudy.duckdb", StoreSettings()) as db:
                collect(db, journal, {}, kept)
                found = ids(db)
            assert len(found) == len(set(found)), left
            assert (before | set(acknowledged)) <= set(found), left
            rest = {path.name for path in journal.iterdir() if not path.name.endswith(".new")}
            assert rest <= {"kept", "damaged"}, left
            shutil.rmtree(folder)
            if ended[-1] != -signal.SIGKILL:
                break
        victims.stdin.close()
    assert ended.pop() == 0, "it failed, or makes more calls than were tried"
    assert acknowledged_by >= {0, 4}  # before, amid and after the writing
    assert len(ended) > 10


FULL_DISK = """
import resource, sys
from pathlib import Path
from distill.collect import collect
from store.settings.config import (StoreSettings)
from store.database.database import Database
from store.errors import StoreError

hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
with Database(Path(sys.argv[1]), StoreSettings()) as db:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    for _ in range(3):
        try:
            collect(db, Path(sys.argv[2]), {})
        except StoreError as error:
            print("refused")
    print(len(list(Path(sys.argv[2]).glob("*.jsonl"))))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print(collect(db, Path(sys.argv[2]), {}))
"""


@pytest.mark.slow
def test_on_a_full_disk_traces_stay_in_the_journal(tmp_path: Path) -> None:
    file, journal = tmp_path / "understudy.duckdb", tmp_path / "journal"
    written = [a_trace(input_messages=os.urandom(4_000).hex()) for _ in range(60)]
    write_segment(journal, *written)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(file), str(journal)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split("\n")[:4] == ["refused"] * 3 + ["1"], done.stderr
    assert "traces=60" in done.stdout
    with Database(file, StoreSettings()) as db:
        assert sorted(ids(db)) == sorted(t.trace_id for t in written)


def test_a_store_that_is_closed_leaves_the_journal_alone(db: Database, journal: Path) -> None:
    write_segment(journal, a_trace())
    db.close()
    with pytest.raises(StoreError):
        collect(db, journal, {})
    assert len(list(journal.glob("*.jsonl"))) == 1


@pytest.mark.slow
def test_collecting_lets_others_read_and_write(db: Database, journal: Path) -> None:
    stop, faults = threading.Event(), []

    def others() -> None:
        try:
            while not stop.is_set():
                for task in task_counts(db):
                    assert task_statistics(db, task).traces % 10 == 0  # whole segments
                append_promotion(db, a_promotion())
        except BaseException as fault:  # a thread's fault must reach the test
            faults.append(fault)

    threads = [threading.Thread(target=others) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        write_segment(journal, *(a_trace() for _ in range(10)))
        collect(db, journal, {})
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert task_counts(db) == {"triage": 150}
