"""Damage to the database file: recognised by what DuckDB says, and told from all else."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from distill.collect import collect
from store.database.damage import damage_at_open, damage_in_use
from store.database.database import Database
from store.errors import StoreDamaged
from store.settings.config import StoreSettings
from tests.helpers.damage import a_database, overwrite
from tests.helpers.samples import a_trace, write_segment

FILE = Path("/data/understudy.duckdb")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (duckdb.IOException("Could not read enough bytes from file"), "it is cut short"),
        (duckdb.IOException("it is not a valid DuckDB database file!"), "it is no DuckDB file"),
        (
            duckdb.IOException("Trying to read a database file with version number 999, but"),
            "of another version of DuckDB",
        ),
        (
            duckdb.SerializationException("Failure while replaying WAL file: Corrupt WAL file"),
            "its write-ahead log cannot be read",
        ),
        (duckdb.Error("Corrupt database file: computed checksum"), "a part of it cannot be read"),
        (duckdb.InternalException("Attempted to access index 7"), "it cannot be read"),
        (duckdb.IOException("Cannot open file: Permission denied"), None),
        (duckdb.IOException("Could not write file: No space left on device"), None),
        (duckdb.IOException("Cannot open file: Too many open files"), None),
        (duckdb.BinderException("is already attached by database"), None),
    ],
)
def test_what_duckdb_says_at_the_opening_of_a_damaged_file(
    error: duckdb.Error, why: str | None
) -> None:
    found = damage_at_open(FILE, error)
    assert (found and f"({why})" in str(found)) if why else found is None


@pytest.mark.parametrize(
    ("error", "damaged"),
    [
        (duckdb.Error("Corrupt database file: computed checksum 1 does not match"), True),
        (duckdb.IOException(f'Could not read enough bytes from file "{FILE}"'), True),
        (duckdb.IOException('Could not read enough bytes from file "/journal/1.jsonl"'), False),
        (duckdb.InvalidInputException("Malformed JSON"), False),
        (duckdb.IOException("No space left on device"), False),
    ],
)
def test_what_duckdb_says_when_it_meets_a_damaged_part(error: duckdb.Error, damaged: bool) -> None:
    assert (damage_in_use(FILE, error) is not None) is damaged


@pytest.mark.slow
def test_a_damaged_part_is_remembered_and_what_comes_is_collected_all_the_same(
    tmp_path: Path,
) -> None:
    file = a_database(tmp_path / "data")
    overwrite(file, 0.4, 64)
    with Database(file, StoreSettings()) as db:
        assert db.damage is None
        with pytest.raises(StoreDamaged, match="understudy repair"):
            db.query("teacher_answers", task="triage", limit=10**6)
        assert "understudy repair" in str(db.damage)
        write_segment(tmp_path / "journal", a_trace())
        assert collect(db, tmp_path / "journal", {}).traces == 1
        assert list((tmp_path / "journal").iterdir()) == []
