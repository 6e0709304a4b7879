"""The database file written anew: the same in it, and nothing of what was deleted."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest

from distill.collect import collect
from store.database import forgetting
from store.database.database import Database
from store.database.promotions import append_promotion, latest_promotions
from store.database.runs import replace_examples, unfinished_runs
from store.database.traces import task_counts
from store.errors import StoreError
from store.ids import new_id
from store.settings.config import StoreSettings
from tests.helpers.samples import a_promotion, a_trace, an_example, write_segment

WORD = "CANARYBIRD"


@pytest.fixture
def file(database_file: Path) -> Path:
    return database_file


def filled(file: Path, journal: Path) -> None:
    """Traces, every third with the word, examples and a promotion."""
    with Database(file, StoreSettings()) as db:
        write_segment(journal, *(a_trace(end_user=WORD if n % 3 else "bob") for n in range(300)))
        collect(db, journal, {})
        run_id = new_id()
        replace_examples(db, run_id, [an_example(run_id) for _ in range(3000)])
        append_promotion(db, a_promotion())


def schema_of(file: Path) -> list[Any]:
    """Tables with their columns, defaults and how they are compressed, and views."""
    with duckdb.connect(":memory:") as plain:
        plain.execute(f"ATTACH '{file}' AS store (READ_ONLY)")
        plain.execute("USE store")
        tables = plain.execute(
            "SELECT table_name, sql FROM duckdb_tables() WHERE database_name = 'store' ORDER BY ALL"
        ).fetchall()
        views = plain.execute(
            "SELECT view_name, sql FROM duckdb_views() WHERE database_name = 'store'"
            " AND NOT internal ORDER BY ALL"
        ).fetchall()
        found: list[Any] = [*tables, *views]
        for name, _ in tables:
            found.append((name, plain.execute(f"SELECT count(*) FROM {name}").fetchone()))
        found += plain.execute(
            "SELECT DISTINCT compression, count, row_group_id FROM"
            " pragma_storage_info('examples') WHERE column_name = 'input_messages'"
            " AND segment_type = 'VARCHAR' ORDER BY ALL"
        ).fetchall()
        return found


@pytest.mark.slow
def test_rewriting_keeps_schema_and_rows(file: Path, tmp_path: Path) -> None:
    filled(file, tmp_path / "journal")
    before = schema_of(file)
    with Database(file, StoreSettings()) as db:
        db.rewrite()
        assert task_counts(db) == {"triage": 300}
        append_promotion(db, a_promotion(task="later"))
        db.rewrite()
        assert set(latest_promotions(db)) == {"triage", "later"}
        assert unfinished_runs(db) == []  # reads a view
    after = schema_of(file)
    assert [x for x in after if x[0] != "promotions"] == [x for x in before if x[0] != "promotions"]
    assert any(x[0] == "ZSTD" for x in after)
    assert not list(file.parent.glob("*.fresh"))
    assert file.stat().st_mode & 0o077 == 0 or file.parent.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_no_byte_of_a_deleted_row_is_left_after_rewriting(file: Path, tmp_path: Path) -> None:
    filled(file, tmp_path / "journal")
    assert WORD.encode() in file.read_bytes()
    with Database(file, StoreSettings()) as db:
        asked = [forgetting.Subject(kind="user", subject=WORD, until=1e12)]
        forgetting_id = forgetting.request_forgetting(db, asked, at=1.0, actor="", reason="")
        with db.transaction():
            forgetting.stage_deletions(db, forgetting_id)
            forgetting.delete_staged(db, forgetting_id, at=1.0)
        db.checkpoint()
        assert WORD.encode() in file.read_bytes()  # why all this is needed
        db.rewrite()
        assert WORD.encode() not in file.read_bytes()
        assert task_counts(db) == {"triage": 100}


@pytest.mark.slow
def test_readers_and_writers_go_on_while_the_file_is_rewritten(file: Path, tmp_path: Path) -> None:
    filled(file, tmp_path / "journal")
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            if task_counts(db) != {"triage": 300}:
                wrong.append("read")

    def write() -> None:
        for number in range(60):
            append_promotion(db, a_promotion(task=f"task {number}"))

    with Database(file, StoreSettings()) as db:
        readers = [threading.Thread(target=read) for _ in range(2)]
        writer = threading.Thread(target=write)
        for thread in (*readers, writer):
            thread.start()
        for _ in range(5):
            db.rewrite()
        writer.join(60)
        stop.set()
        for thread in readers:
            thread.join(60)
        assert not wrong
        assert len(latest_promotions(db)) == 61
    with Database(file, StoreSettings()) as db:
        assert len(latest_promotions(db)) == 61


@pytest.mark.slow
def test_a_rewrite_that_fails_leaves_the_file_as_it_was(file: Path, tmp_path: Path) -> None:
    filled(file, tmp_path / "journal")
    with Database(file, StoreSettings()) as db:
        in_the_way = file.with_name(f"{file.name}.fresh")
        in_the_way.mkdir()
        (in_the_way / "something").touch()
        with pytest.raises(StoreError, match="written anew"):
            db.rewrite()
        assert task_counts(db) == {"triage": 300}
        (in_the_way / "something").unlink()
        in_the_way.rmdir()
        db.rewrite()
        assert task_counts(db) == {"triage": 300}


@pytest.mark.slow
def test_the_rest_of_a_killed_rewrite_is_deleted(file: Path, tmp_path: Path) -> None:
    filled(file, tmp_path / "journal")
    left = file.with_name(f"{file.name}.fresh")
    left.write_bytes(b"half of it")
    with Database(file, StoreSettings()) as db:
        assert not left.exists()
        assert task_counts(db) == {"triage": 300}


def test_a_checkpoint_after_an_update_is_made(file: Path) -> None:
    """Nobody holds on to a result that was not read to its end."""
    with Database(file, StoreSettings()) as db:
        append_promotion(db, a_promotion(promotion_id=(one := new_id())))
        db.execute("update_promotion", promotion_id=one, route=None, certificate=None)
        db.checkpoint()
