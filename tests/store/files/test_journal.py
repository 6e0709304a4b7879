"""The journal: nothing that was acknowledged is lost, whatever fails or is killed when."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.files.journal import JournalWriter, sealed_segments
from store.ids import new_id
from store.settings.config import JournalSettings
from tests.helpers.paths import ROOT
from tests.helpers.samples import a_trace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def ids(folder: Path) -> list[str]:
    """The ids in all sealed segments, in their order. Every line has to be whole."""
    lines = [line for path in sealed_segments(folder) for line in path.read_text().splitlines()]
    return [json.loads(line)["trace_id"] for line in lines]


def test_a_trace_is_in_the_file_when_append_returns(folder: Path) -> None:
    writer = JournalWriter(folder, JournalSettings())
    trace = a_trace(confidence=-0.1, end_user="Zoë")
    writer.append(trace)
    (segment,) = folder.iterdir()
    assert segment.suffix == ".open"
    assert json.loads(segment.read_text()) == msgspec.structs.asdict(trace)
    assert sealed_segments(folder) == []  # its writer lives
    assert writer.health.ok
    writer.close()


def test_a_segment_is_sealed_when_it_is_old_enough(folder: Path) -> None:
    clock = Clock()
    writer = JournalWriter(folder, JournalSettings(segment_seconds=2), clock=clock)
    writer.append(a_trace())
    clock.now = 1.9
    writer.tick()
    assert sealed_segments(folder) == []
    clock.now = 2.0
    writer.tick()
    assert len(sealed_segments(folder)) == 1


def test_a_segment_is_sealed_when_it_is_large_enough(folder: Path) -> None:
    writer = JournalWriter(folder, JournalSettings(segment_seconds=1e9, segment_mb=0.01))
    writer.append(a_trace(input_messages="x" * 5_000))
    writer.tick()
    assert sealed_segments(folder) == []
    writer.append(a_trace(input_messages="x" * 6_000))
    writer.tick()
    assert len(sealed_segments(folder)) == 1


def test_segments_come_oldest_first_and_name_their_worker(folder: Path) -> None:
    traces = [a_trace() for _ in range(5)]
    for number, trace in enumerate(traces):
        writer = JournalWriter(folder, JournalSettings(), worker=number)
        writer.append(trace)
        writer.close()
        time.sleep(0.002)  # ids are in order from one millisecond to the next
    assert ids(folder) == [t.trace_id for t in traces]
    assert [p.stem.rpartition("-")[2] for p in sealed_segments(folder)] == list("01234")


def test_an_idle_writer_leaves_nothing(folder: Path) -> None:
    writer = JournalWriter(folder, JournalSettings())
    writer.tick()
    writer.close()
    assert sealed_segments(folder) == []
    assert not folder.exists()


def test_segments_are_readable_by_their_owner_alone(folder: Path) -> None:
    writer = JournalWriter(folder, JournalSettings(fsync=True))
    writer.append(a_trace())
    assert folder.stat().st_mode & 0o077 == 0
    assert next(folder.iterdir()).stat().st_mode & 0o077 == 0
    writer.close()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("nul \0 inside", "nul \0 inside"),
        ("emoji 👩‍🚀 and line\u2028separator", "emoji 👩‍🚀 and line\u2028separator"),
        ("half \ud83d a pair", "half \ufffd a pair"),  # UTF-8 cannot hold it
    ],
)
def test_any_text_is_one_line(folder: Path, text: str, kept: str) -> None:
    writer = JournalWriter(folder, JournalSettings())
    writer.append(a_trace(input_messages=text))
    writer.close()
    (segment,) = sealed_segments(folder)
    (line,) = segment.read_bytes().rstrip(b"\n").split(b"\n")
    assert json.loads(line)["input_messages"] == kept
    assert writer.health.ok


def test_an_integer_that_json_readers_cannot_hold_is_written_all_the_same(folder: Path) -> None:
    writer = JournalWriter(folder, JournalSettings())
    writer.append(a_trace(input_tokens=10**30))
    writer.close()
    assert json.loads(sealed_segments(folder)[0].read_text())["input_tokens"] == 10**30


def test_without_a_writable_folder_traces_wait_in_memory(tmp_path: Path) -> None:
    """The journal's parent is a file, so that nothing can be made there, not even by root."""
    parent = tmp_path / "data"
    parent.write_text("in the way")
    writer = JournalWriter(parent / "journal", JournalSettings())
    traces = [a_trace() for _ in range(3)]
    for trace in traces:
        writer.append(trace)
    health = writer.health
    assert (health.ok, health.backlog, health.lost) == (False, 3, 0)
    assert health.error is not None and str(parent) in health.error
    writer.tick()
    assert writer.health.backlog == 3

    parent.unlink()
    writer.append(a_trace(trace_id="the last"))
    assert (writer.health.ok, writer.health.backlog) == (True, 0)
    writer.close()
    assert ids(parent / "journal") == [*(t.trace_id for t in traces), "the last"]


def test_the_backlog_is_bounded_and_drops_the_oldest(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    folder = tmp_path / "data" / "journal"
    writer = JournalWriter(folder, JournalSettings(backlog_mb=0.01))
    traces = [a_trace(input_messages="x" * 3_000) for _ in range(10)]
    for trace in traces:
        writer.append(trace)
    kept, lost = writer.health.backlog, writer.health.lost
    assert 0 < kept < 10 and kept + lost == 10
    (tmp_path / "data").unlink()
    writer.tick()
    writer.close()
    assert ids(folder) == [t.trace_id for t in traces[-kept:]]
    assert writer.health.lost == lost


def test_traces_that_cannot_be_written_until_the_end_are_counted_as_lost(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    writer = JournalWriter(tmp_path / "data" / "journal", JournalSettings())
    writer.append(a_trace())
    writer.close()
    assert (writer.health.ok, writer.health.backlog, writer.health.lost) == (False, 0, 1)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tests.helpers.samples import a_trace
from store.settings.config import (JournalSettings)
from store.files.journal import JournalWriter

folder, hard = Path(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
writer = JournalWriter(folder, JournalSettings(segment_seconds=1e9))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
for number in range(8):
    writer.append(a_trace(trace_id=str(number), input_messages="x" * 3_000))
health = writer.health
print(health.ok, health.backlog, health.lost, health.error)
sizes = [path.stat().st_size for path in folder.iterdir()]
print(len(sizes), max(sizes) < 10_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
writer.tick()
print(writer.health.ok, writer.health.backlog, writer.health.lost)
writer.close()
"""


@pytest.mark.slow
def test_a_full_disk_costs_no_trace(folder: Path) -> None:
    """With a limit on file sizes the system writes a part of a line, as on a full disk."""
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    full, cut, mended = result.stdout.splitlines()
    assert full.startswith(f"False 6 0 {folder}: the journal cannot be written: ")
    assert cut == "1 True"  # the half of a line is taken away again
    assert mended == "True 0 0"
    assert ids(folder) == list("01234567")


WRITER = """
import sys
from pathlib import Path
from tests.helpers.samples import a_trace
from store.settings.config import (JournalSettings)
from store.files.journal import JournalWriter

writer = JournalWriter(Path(sys.argv[1]), JournalSettings(segment_seconds=0.01))
while True:
    trace = a_trace(input_messages="x" * 2_000)
    writer.append(trace)
    sys.stdout.write(trace.trace_id + "\\n")
    sys.stdout.flush()
    writer.tick()
"""


@pytest.mark.slow
def test_kill_9_of_a_writer_loses_nothing_that_it_acknowledged(folder: Path) -> None:
    acknowledged: list[str] = []
    chance = random.Random(7)
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        acknowledged.append(process.stdout.readline().strip())
        time.sleep(chance.uniform(0, 0.08))
        process.kill()
        acknowledged += process.stdout.read().split()
        process.stdout.close()
        process.wait()
    open_ones = list(folder.glob("*.open"))
    assert open_ones  # the orphans of killed writers

    found = {}
    for path in sealed_segments(folder):
        for line in path.read_bytes().split(b"\n")[:-1]:  # the last may be torn, and then is none
            trace = json.loads(line)
            assert trace["trace_id"] not in found
            found[trace["trace_id"]] = trace
    assert not list(folder.glob("*.open"))
    assert len(acknowledged) > 8
    assert set(acknowledged) <= set(found)


def test_an_orphan_without_a_line_is_removed_and_a_fresh_file_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / f"{new_id()}-0.open").touch()
    stale, fresh = folder / ".old-0.new", folder / ".young-0.new"
    stale.touch()
    fresh.touch()
    os.utime(stale, (time.time() - 3600,) * 2)
    assert sealed_segments(folder) == []
    assert [p.name for p in folder.iterdir()] == [fresh.name]


@pytest.mark.slow
def test_no_reader_takes_a_segment_from_a_living_writer(folder: Path) -> None:
    """Readers poll all the time, while writers seal as often as they can."""
    stop = threading.Event()
    faults: list[BaseException] = []

    def read() -> None:
        while not stop.is_set():
            try:
                for path in sealed_segments(folder):
                    assert path.read_bytes().endswith(b"\n")
            except BaseException as fault:  # a thread's assertion must reach the test
                faults.append(fault)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    writers = [JournalWriter(folder, JournalSettings(segment_seconds=1e-9), n) for n in range(2)]
    expected = []
    for _ in range(150):
        for writer in writers:
            trace = a_trace()
            writer.append(trace)
            expected.append(trace.trace_id)
            writer.tick()
    stop.set()
    for reader in readers:
        reader.join()
    for writer in writers:
        writer.close()
        assert writer.health.ok
    assert faults == []
    assert sorted(ids(folder)) == sorted(expected)


STEPS = st.lists(
    st.sampled_from(["append", "append", "append", "tick", "wait", "break", "mend", "read"]),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_every_trace_is_there_once_after_any_sequence_of_faults(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder, away = Path(place) / "journal", Path(place) / "away"
        folder.mkdir()
        clock = Clock()
        writer = JournalWriter(folder, JournalSettings(segment_seconds=1), clock=clock)
        expected = []
        for step in [*steps, "mend"]:
            if step == "append":
                trace = a_trace()
                writer.append(trace)
                expected.append(trace.trace_id)
            elif step == "tick":
                writer.tick()
            elif step == "wait":
                clock.now += 1
            elif step == "read" and not away.exists():
                sealed_segments(folder)
            elif step == "break" and not away.exists():
                folder.rename(away)
                folder.write_text("in the way")
            elif step == "mend" and away.exists():
                folder.unlink()
                away.rename(folder)
        writer.close()
        assert writer.health.lost == 0
        assert sorted(ids(folder)) == sorted(expected)
