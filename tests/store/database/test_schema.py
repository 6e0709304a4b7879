"""The schema's history, and the named queries that go with it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import duckdb
import pytest

import store
from store.database.database import Database
from store.database.promotions import append_promotion, latest_promotions
from store.database.queries import load_queries
from store.database.schema import MIGRATIONS, load_migrations
from store.errors import StoreError
from store.records import (
    Evaluation,
    Example,
    Feedback,
    Promotion,
    RunEvent,
    TeacherCall,
    Trace,
)
from store.settings.config import StoreSettings
from tests.helpers.samples import a_promotion


@pytest.fixture
def file(database_file: Path) -> Path:
    return database_file


SHIPPED = sorted(MIGRATIONS.glob("*.sql"))


def migrations(folder: Path, *steps: str) -> Path:
    folder.mkdir(exist_ok=True)
    for number, sql in enumerate(steps, start=1):
        (folder / f"{number:04}_step.sql").write_text(sql)
    return folder


@pytest.mark.parametrize("known", range(len(SHIPPED)), ids=[p.stem for p in SHIPPED])
@pytest.mark.slow
def test_every_older_schema_is_migrated_to_the_newest(
    file: Path, tmp_path: Path, known: int
) -> None:
    older = migrations(tmp_path / "older", *(p.read_text() for p in SHIPPED[:known]))
    Database(file, StoreSettings(), migrations=older).close()
    with Database(file, StoreSettings()) as db:
        promotion = a_promotion()
        append_promotion(db, promotion)
        assert latest_promotions(db) == {"triage": promotion}
    with duckdb.connect(str(file)) as plain:
        applied = plain.execute("SELECT number FROM migrations ORDER BY number").fetchall()
    assert applied == [(int(p.stem[:4]),) for p in SHIPPED]


def test_a_migration_keeps_what_is_there_and_happens_once(file: Path, tmp_path: Path) -> None:
    folder = migrations(tmp_path / "steps", "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1);")
    Database(file, StoreSettings(), migrations=folder).close()
    migrations(folder, (folder / "0001_step.sql").read_text(), "ALTER TABLE t ADD COLUMN b TEXT;")
    for _ in range(2):
        Database(file, StoreSettings(), migrations=folder).close()
    with duckdb.connect(str(file)) as plain:
        assert plain.execute("SELECT * FROM t").fetchall() == [(1, None)]


def test_a_migration_that_fails_leaves_the_schema_before_it(file: Path, tmp_path: Path) -> None:
    good = "CREATE TABLE t (a INTEGER);"
    folder = migrations(tmp_path / "s", good, "DROP TABLE t; SELECT * FROM nowhere;")
    with pytest.raises(StoreError, match="nowhere"):
        Database(file, StoreSettings(), migrations=folder)
    migrations(folder, good, "INSERT INTO t VALUES (7);")
    Database(file, StoreSettings(), migrations=folder).close()
    with duckdb.connect(str(file)) as plain:
        assert plain.execute("SELECT * FROM t").fetchall() == [(7,)]


def test_a_database_of_a_newer_version_is_left_alone(file: Path, tmp_path: Path) -> None:
    newer = migrations(
        tmp_path / "newer", *(p.read_text() for p in SHIPPED), "CREATE TABLE future (a INTEGER);"
    )
    Database(file, StoreSettings(), migrations=newer).close()
    with pytest.raises(StoreError, match=r"newer version .*: update Understudy"):
        Database(file, StoreSettings())
    Database(file, StoreSettings(), migrations=newer).close()


@pytest.mark.parametrize("name", ["0002_late.sql", "first.sql", "1_first.sql"])
def test_migrations_have_numbers_without_a_gap(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(StoreError, match="without a gap"):
        load_migrations(tmp_path)


def test_the_schema_has_nothing_that_ducklake_refuses() -> None:
    for migration in load_migrations():
        sql = re.sub(r"--.*", "", migration.sql).upper()
        for word in ("PRIMARY KEY", "UNIQUE", "CHECK", "REFERENCES", "ENUM", "INDEX", "SEQUENCE"):
            assert not re.search(rf"\b{word}\b", sql), f"{migration.name}: {word}"
    for query in load_queries().values():
        assert not re.search(r"\bON CONFLICT\b|\bRETURNING\b", query.sql.upper()), query.name


def names_of(record: type) -> set[str]:
    return {field.name for field in fields(record)}


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("traces", {*Trace.__struct_fields__, "imported_at"}),
        ("examples", names_of(Example)),
        ("teacher_calls", names_of(TeacherCall)),
        ("run_events", names_of(RunEvent)),
        ("evaluations", names_of(Evaluation)),
        ("promotions", names_of(Promotion)),
        ("feedback", names_of(Feedback)),
    ],
)
def test_tables_have_the_fields_of_their_records(
    file: Path, db: Database, table: str, names: set[str]
) -> None:
    db.close()
    with duckdb.connect(str(file), read_only=True) as plain:
        columns = {row[0] for row in plain.execute(f"DESCRIBE {table}").fetchall()}
    assert columns == names


def test_every_query_is_used() -> None:
    root = Path(store.__file__).parent.parent
    modules = [*root.glob("store/database/*.py"), *root.glob("distill/**/*.py")]
    words = {word for file in modules for word in re.findall(r'"(\w+)"', file.read_text())}
    assert set(load_queries()) <= words


def test_two_files_may_not_name_a_query_alike(tmp_path: Path) -> None:
    for name in ("first.sql", "second.sql"):
        (tmp_path / name).write_text("-- name: one\n-- Says one.\nSELECT 1;\n")
    with pytest.raises(StoreError, match=r"second\.sql: the query one is there twice"):
        load_queries(tmp_path)


def test_a_query_needs_a_description_and_a_name_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "queries.sql"
    file.write_text("-- name: one\n-- Says one.\nSELECT 1;\n\n-- name: two\nSELECT 2;\n")
    with pytest.raises(StoreError, match="two has no description"):
        load_queries(tmp_path)
    file.write_text("-- name: one\n-- Says one.\nSELECT 1;\n\n-- name: one\n-- Again.\nSELECT 1;\n")
    with pytest.raises(StoreError, match="one is there twice"):
        load_queries(tmp_path)
    file.write_text("-- File.\n\n-- name: one\n-- Says\n-- one.\nSELECT 1;\n-- ---- next\n")
    (query,) = load_queries(tmp_path).values()
    assert (query.name, query.description, query.sql) == ("one", "Says\none.", "SELECT 1")
