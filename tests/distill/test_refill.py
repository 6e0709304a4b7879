"""What the database lost is collected again from the journal's copies, and nothing else is."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from distill.collect import collect
from distill.refill import lacks_last_copy, refill, refill_what_is_lost
from store.database.database import Database
from store.database.forgetting import Subject, request_forgetting
from store.database.traces import task_counts
from store.files.kept import KeptSegments
from store.records import Feedback, Trace
from store.settings.config import StoreSettings
from tests.helpers.samples import a_feedback, a_trace, write_segment
from tests.helpers.stored import rows


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def kept(journal: Path) -> KeptSegments:
    return KeptSegments(journal, days=3, megabytes=100)


def collected(db: Database, kept: KeptSegments, *records: Trace | Feedback) -> None:
    journal = kept.folder.parent
    write_segment(journal, *records)
    collect(db, journal, {}, kept)


def ids(db: Database, table: str = "traces", column: str = "trace_id") -> list[str]:
    return sorted(row[column] for row in rows(db, f"SELECT {column} FROM {table}"))


@pytest.mark.slow
def test_a_database_that_was_deleted_gets_the_last_days_back(
    tmp_path: Path, kept: KeptSegments, caplog: pytest.LogCaptureFixture
) -> None:
    traces = [a_trace() for _ in range(5)]
    said = a_feedback(traces[0].trace_id)
    with Database(tmp_path / "first.duckdb", StoreSettings()) as db:
        collected(db, kept, *traces[:3])
        collected(db, kept, *traces[3:], said)
        assert not lacks_last_copy(db, kept)
        assert refill_what_is_lost(db, kept, {}) is None
    with Database(tmp_path / "second.duckdb", StoreSettings()) as db:
        assert lacks_last_copy(db, kept)
        with caplog.at_level(logging.WARNING):
            refill_what_is_lost(db, kept, {})
        assert ids(db) == sorted(trace.trace_id for trace in traces)
        assert ids(db, "feedback", "feedback_id") == [said.feedback_id]
        assert "5 traces that the database had lost" in caplog.text
        assert not lacks_last_copy(db, kept)
        assert refill(db, kept, {}).traces == 0  # a trace twice is one trace
        assert len(ids(db)) == 5
        collect(db, kept.folder.parent, {}, kept)
    assert [path.name for path in kept.folder.parent.iterdir()] == ["kept"]


@pytest.mark.slow
def test_a_write_ahead_log_that_lost_its_end_is_made_whole(
    tmp_path: Path, kept: KeptSegments
) -> None:
    file, copy = tmp_path / "understudy.duckdb", tmp_path / "copy.duckdb"
    traces = [a_trace() for _ in range(40)]
    with Database(file, StoreSettings()) as db:
        for trace in traces:
            collected(db, kept, trace)
        for name in ("", ".wal"):  # as after a power cut
            content = Path(f"{file}{name}").read_bytes()
            Path(f"{copy}{name}").write_bytes(content[: -len(content) // 3] if name else content)
    with Database(copy, StoreSettings()) as db:
        assert 0 < len(ids(db)) < 40
        refill_what_is_lost(db, kept, {})
        assert ids(db) == sorted(trace.trace_id for trace in traces)


def test_lines_of_the_forgotten_are_neither_copied_nor_collected_again(
    tmp_path: Path, kept: KeptSegments, db: Database
) -> None:
    theirs, other = a_trace(end_user="ann", task="a"), a_trace(end_user="bob", task="b")
    subjects = [Subject(kind="user", subject="ann", until=time.time() + 60)]
    request_forgetting(db, subjects, at=0.0, actor="", reason="")
    collected(db, kept, theirs, other)
    [file] = kept.files()
    assert theirs.trace_id.encode() not in file.path.read_bytes()
    assert other.trace_id.encode() in file.path.read_bytes()
    file.path.write_bytes(file.path.read_bytes().replace(b'"bob"', b'"ann"'))
    refill(db, kept, {})
    assert task_counts(db) == {"b": 1}


@pytest.mark.slow
def test_damaged_lines_are_not_copied(kept: KeptSegments, db: Database) -> None:
    whole = a_trace()
    write_segment(kept.folder.parent, whole)
    [segment] = kept.folder.parent.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes() + b"{torn")
    collect(db, kept.folder.parent, {}, kept)
    [file] = kept.files()
    assert file.path.read_bytes().count(b"\n") == 1
    assert b"torn" not in file.path.read_bytes()


def test_copies_that_cannot_be_written_hold_up_nothing(
    kept: KeptSegments, db: Database, tmp_path: Path
) -> None:
    kept.folder.parent.mkdir()
    kept.folder.parent.rename(tmp_path / "real")
    journal = tmp_path / "real"
    (tmp_path / "journal").write_text("in the way")
    write_segment(journal, a_trace())
    got = collect(db, journal, {}, kept)
    assert got.traces == 1
    assert got.not_kept
    assert list(journal.iterdir()) == []
