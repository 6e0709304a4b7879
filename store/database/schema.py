"""The schema's history: numbered SQL files, each applied once, in order, in its own transaction.

A migration is never changed once it is released; the next one corrects it. Views over `SELECT *`
must be created again by a migration that changes the table's columns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import duckdb

from store.errors import StoreError

MIGRATIONS = Path(__file__).with_name("migrations")
_FILE = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int  # 1, 2, 3…
    name: str
    sql: str


def load_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """The migrations of a folder in order. Raises StoreError when their numbers have a gap."""
    migrations: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None or int(match[1]) != len(migrations) + 1:
            raise StoreError(f"{path.name}: migrations are named NNNN_name.sql, without a gap")
        migrations.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    return migrations


def migrate(connection: duckdb.DuckDBPyConnection, steps: list[Migration], *, at: float) -> int:
    """Brings the schema up to date and returns how many steps that took.

    A step that fails leaves the database as it was before the step. Raises StoreError when the
    database was made by a newer version, and duckdb.Error when a step fails.
    """
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations"
        ' (number INTEGER NOT NULL, name VARCHAR NOT NULL, "at" DOUBLE NOT NULL)'
    )
    # all of it: a result that is not read to its end is a transaction that is never over, and after
    # an UPDATE no checkpoint is made while there is one
    [row] = connection.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchall()
    current = int(row[0])
    if current > len(steps):
        raise StoreError(
            f"the database is of a newer version (schema {current}, this version knows "
            f"{len(steps)}): update Understudy, or use another data_dir"
        )
    for step in steps[current:]:
        connection.execute("BEGIN")
        try:
            connection.execute(step.sql)
            connection.execute(
                "INSERT INTO migrations VALUES (?, ?, ?)", [step.number, step.name, at]
            )
            connection.execute("COMMIT")
        except duckdb.Error:
            connection.execute("ROLLBACK")
            raise
    return len(steps) - current
