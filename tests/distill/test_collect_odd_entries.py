"""Entries of the journal that are no segment, or that cannot be read: the others are collected."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distill import collect as collecting
from distill.collect import Collected, collect
from store.database.database import Database
from store.database.traces import task_counts
from store.files.journal import JournalWriter, count_set_aside
from store.ids import new_id
from store.settings.config import JournalSettings
from tests.helpers.paths import ROOT
from tests.helpers.samples import a_trace, write_segment


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    folder = tmp_path / "journal"
    folder.mkdir()
    return folder


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket may have 107 characters
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def a_full_directory(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("x")


ODD: dict[str, Callable[[Path], object]] = {
    "a directory": Path.mkdir,
    "a directory with files": a_full_directory,
    "a dangling link": lambda path: path.symlink_to("/nowhere/at/all"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a file": lambda path: path.symlink_to("/etc/hostname"),
    "a link to a directory": lambda path: path.symlink_to("/etc"),
    "a named pipe": os.mkfifo,
    "a socket": a_socket,
}


@pytest.mark.parametrize("suffix", [".jsonl", ".open"])
@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
@pytest.mark.slow
def test_an_odd_entry_is_set_aside_and_the_rest_is_collected(
    db: Database, journal: Path, make: Callable[[Path], object], suffix: str
) -> None:
    odd = journal / f"0-{new_id()}-0{suffix}"
    make(odd)
    write_segment(journal, a_trace(), a_trace())
    assert collect(db, journal, {}) == Collected(1, 2, 0)
    assert not os.path.lexists(odd)
    assert count_set_aside(journal) == 1
    assert collect(db, journal, {}) == Collected(0, 0, 0)
    assert Path("/etc/hostname").exists()


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
@pytest.mark.slow
def test_an_odd_entry_in_place_of_a_new_segment_stops_nothing(
    db: Database, journal: Path, make: Callable[[Path], object]
) -> None:
    make(journal / f".{new_id()}-0.new")
    write_segment(journal, a_trace())
    assert collect(db, journal, {}).traces == 1
    assert count_set_aside(journal) == 1


@pytest.mark.parametrize(
    "name",
    [
        b"\xff\xfe.jsonl",
        b"two\nlines.jsonl",
        b"back\\slash.jsonl",
        b"\x1b[31mred.jsonl",
        "gelöscht \u202e.jsonl".encode(),
        b"*?[a-z]{1}'\".jsonl",
        b"a" * 245 + b".jsonl",
        b"-rf.jsonl",
    ],
)
@pytest.mark.slow
def test_a_segment_with_an_odd_name_is_collected(db: Database, journal: Path, name: bytes) -> None:
    write_segment(journal, a_trace())
    [segment] = journal.glob("*.jsonl")
    os.rename(bytes(segment), bytes(journal) + b"/" + name)
    write_segment(journal, a_trace())
    assert collect(db, journal, {}) == Collected(2, 2, 0)
    assert list(journal.iterdir()) == []


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
@pytest.mark.slow
def test_something_else_named_damaged_makes_room_for_the_folder(
    db: Database, journal: Path, make: Callable[[Path], object]
) -> None:
    make(journal / "damaged")
    (journal / "0.jsonl").write_text("torn")
    write_segment(journal, a_trace())
    assert collect(db, journal, {}) == Collected(2, 1, 1)
    assert list(journal.glob("*.jsonl")) == []


@pytest.mark.slow
def test_a_line_without_an_end_does_not_take_the_memory(
    db: Database, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file: as large as it says, without taking space."""
    monkeypatch.setattr(collecting, "MAX_LINE_BYTES", 1 << 25)
    with (journal / "0.jsonl").open("wb") as file:
        file.truncate(1 << 40)
    write_segment(journal, a_trace())
    assert collect(db, journal, {}) == Collected(1, 1, 0)
    assert count_set_aside(journal) == 1


def test_a_data_folder_whose_name_looks_like_a_partition_changes_no_column(
    db: Database, tmp_path: Path
) -> None:
    journal = tmp_path / "task=other" / "journal"
    write_segment(journal, a_trace(task="triage"))
    assert collect(db, journal, {}) == Collected(1, 1, 0)
    assert task_counts(db) == {"triage": 1}


def test_without_descriptors_nothing_is_set_aside(db: Database, journal: Path) -> None:
    """It says nothing about the entry that it cannot be opened now."""
    write_segment(journal, a_trace())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd" if Path("/proc").exists() else "/dev/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    held = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            collect(db, journal, {})
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert collect(db, journal, {}) == Collected(1, 1, 0)
    assert count_set_aside(journal) == 0


AS_NOBODY = """
import os, sys
from pathlib import Path
from distill.collect import collect
from store.database.database import Database
from store.settings.config import StoreSettings

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
folder = Path(sys.argv[1])
with Database(folder / "understudy.duckdb", StoreSettings()) as db:
    for _ in range(2):
        got = collect(db, folder / "journal", {})
        print(got.traces, got.damaged, got.skipped)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
@pytest.mark.parametrize("kept_folder", ["ours", "of root"])
@pytest.mark.slow
def test_a_file_of_root_is_moved_or_skipped(tmp_path: Path, kept_folder: str) -> None:
    """`of root`: the folder of what is set aside cannot be written either."""
    nobody = 65534
    data = tmp_path / "data"
    journal = data / "journal"
    write_segment(journal, a_trace())
    for path in (data, journal, *journal.iterdir()):
        os.chown(path, nobody, nobody)
    (journal / "0.jsonl").write_text("of root")
    (journal / "0.jsonl").chmod(0o600)
    (journal / "1.jsonl").write_text("torn, and readable")
    (journal / "1.jsonl").chmod(0o644)
    (journal / "2.jsonl").mkdir(mode=0o700)  # a folder that is moved needs rights on itself
    if kept_folder == "of root":
        (journal / "damaged").mkdir(mode=0o700)
    for folder in [*data.parents][:-2]:
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(data)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "HOME": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    first, second = done.stdout.splitlines() or pytest.fail(done.stderr)
    assert first.startswith("1 1" if kept_folder == "ours" else "1 0")
    assert second.startswith("0 0")
    skipped = ["2.jsonl"] if kept_folder == "ours" else ["0.jsonl", "1.jsonl", "2.jsonl"]
    assert [name for name in ("0.jsonl", "1.jsonl", "2.jsonl") if name in second] == skipped


@pytest.mark.parametrize("whole_folder", [False, True])
@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_segment_that_is_deleted_while_it_is_written_is_written_again(
    db: Database, journal: Path, whole_folder: bool, at_the_end: bool
) -> None:
    writer = JournalWriter(journal, JournalSettings())
    written = [a_trace() for _ in range(3)]
    for trace in written:
        writer.append(trace)
    [segment] = journal.iterdir()
    segment.unlink()
    if whole_folder:
        journal.rmdir()
    if not at_the_end:
        writer.tick()
    writer.close()
    assert collect(db, journal, {}) == Collected(1, 3, 0)
    assert writer.health.lost == 0
