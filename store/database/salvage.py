"""Takes what can be read from a damaged database file into a new one.

Tables are copied in ranges of rows. Where a range cannot be read, its row groups are copied one by
one, and what is in the others is lost: a row group is the least that DuckDB reads. A write-ahead
log is replayed up to its first damaged entry. The damaged file is opened for reading alone.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from store.database.attach import (
    ROW_GROUP_ROWS,
    attach_sql,
    attach_to_read_sql,
    duckdb_config,
    reading,
    wal_of,
)
from store.database.damage import damage_at_open, tables_of, unreadable_tables
from store.database.replace import remove
from store.database.schema import Migration, load_migrations, migrate
from store.errors import StoreError
from store.settings.config import StoreSettings

RANGE_ROWS = 16 * ROW_GROUP_ROWS  # copied in one transaction
_WAL_POSITION = re.compile(r"entry at byte position (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedTable:
    """What could be read of a table."""

    name: str
    rows: int | None  # that it had; None: nobody knows
    saved: int


def fault_of(file: Path) -> str | None:
    """Why not all of a database file can be read; None when it can. Reads all of it.

    Raises StoreError when another process owns the file, or the machine does not let it be read.
    """
    with reading() as connection:
        try:
            connection.execute(attach_to_read_sql(file, "old"))
        except duckdb.Error as error:
            damaged = damage_at_open(file, error)
            if damaged is None:
                raise StoreError(f"{file} cannot be opened: {error}") from None
            return str(damaged).partition("(")[2].partition(")")[0]
        broken = unreadable_tables(connection, "old")
    return f"not all of {', '.join(broken)} can be read" if broken else None


def salvage(file: Path, fresh: Path, settings: StoreSettings, migrations: Path) -> list[SavedTable]:
    """Fills a new file with what can be read of a damaged one. Returns it table by table.

    The new file has the schema of the old one, as far as that is known: whoever opens it brings it
    up to date. Raises StoreError when the new file cannot be written; the old one is not changed.
    """
    work = file.with_name(f"{file.name}.repair")
    remove(fresh)
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(mode=0o700)
        return _Salvage(file, fresh, work, settings, load_migrations(migrations)).run()
    except OSError as error:
        raise StoreError(f"{fresh}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Salvage:
    """One salvage: a connection to both files, made again when DuckDB gives it up."""

    def __init__(
        self, file: Path, fresh: Path, work: Path, settings: StoreSettings, steps: list[Migration]
    ) -> None:
        self._file, self._fresh, self._work = file, fresh, work
        self._settings, self._steps = settings, steps
        self._old: Path | None = None  # what is attached as `old`; None: nothing can be
        self._connection: duckdb.DuckDBPyConnection | None = None

    def run(self) -> list[SavedTable]:
        try:
            self._old = self._readable_form()
            connection = self._connect()
            connection.execute("USE fresh")
            migrate(connection, self._steps[: self._version()], at=time.time())
            old = set(tables_of(connection, "old")) if self._old else set()
            tables = [table for table in tables_of(connection, "fresh") if table != "migrations"]
            saved = [
                self._copy(table) if table in old else SavedTable(name=table, rows=None, saved=0)
                for table in tables
            ]
            self._connect().execute("CHECKPOINT fresh")
            return saved
        except duckdb.Error as error:
            raise StoreError(f"{self._fresh}: cannot be written: {error}") from None
        finally:
            self._close()

    def _readable_form(self) -> Path | None:
        """The old file; or a link to it with the part of its log that can be replayed, or none."""
        if not self._file.is_file():
            return None
        position = self._try(self._file)
        if position is None:
            return self._file
        link, log = self._work / self._file.name, wal_of(self._file)
        try:
            os.link(self._file, link)
        except OSError:
            shutil.copyfile(self._file, link)
        lengths = [position] if position and log.is_file() else []
        for length in [*lengths, 0]:  # without its log in the end
            remove(wal_of(link))
            if length:
                with log.open("rb") as source, wal_of(link).open("wb") as target:
                    target.write(source.read(length))
            if self._try(link) is None:
                return link
        return None

    def _try(self, file: Path) -> int | None:
        """None when this file can be opened; else where its log is damaged, 0 if it is not that."""
        with reading() as connection:
            try:
                connection.execute(attach_to_read_sql(file, "old"))
            except duckdb.Error as error:
                found = _WAL_POSITION.search(str(error))
                return int(found[1]) if found else 0
        return None

    def _version(self) -> int:
        """How many migrations the old file has seen; all that are known if it does not say."""
        known = len(self._steps)
        if self._old is None:
            return known
        try:
            rows = self._connect().execute("SELECT max(number) FROM old.migrations").fetchall()
        except duckdb.Error:
            return known
        return min(known, int(rows[0][0] or known))

    def _copy(self, table: str) -> SavedTable:
        columns = self._columns(table)
        rows, end = self._extent(table)
        if self._count("fresh", table):  # of a migration
            emptied = f'DELETE FROM fresh."{table}"'  # noqa: S608
            read = bool(rows) and self._transact(emptied, table, columns, 0, end)
            return SavedTable(name=table, rows=rows, saved=(rows or 0) if read else 0)
        for start in range(0, end, RANGE_ROWS):
            if not self._transact(None, table, columns, start, start + RANGE_ROWS):
                for first in range(start, min(start + RANGE_ROWS, end), ROW_GROUP_ROWS):
                    self._transact(None, table, columns, first, first + ROW_GROUP_ROWS)
        return SavedTable(name=table, rows=rows, saved=self._count("fresh", table) or 0)

    def _transact(self, before: str | None, table: str, columns: str, first: int, end: int) -> bool:
        """Copies a range of rows, all or none; whether it could be read. Raises duckdb.Error when
        it could, and not be written.
        """
        read = f'SELECT {columns} FROM old."{table}" WHERE rowid >= {first} AND rowid < {end}'  # noqa: S608
        connection = self._connect()
        try:
            connection.execute("BEGIN")
            if before is not None:
                connection.execute(before)
            connection.execute(f'INSERT INTO fresh."{table}" BY NAME {read}')
            connection.execute("COMMIT")
        except duckdb.Error as error:
            self._close()  # DuckDB may have given it up
            try:
                self._connect().execute(f"SELECT bit_xor(hash(r)) FROM ({read}) r").fetchall()  # noqa: S608
            except duckdb.Error:
                self._close()
                return False
            raise error from None
        return True

    def _columns(self, table: str) -> str:
        """The columns that both have: one of a newer version may have more."""
        sql = (
            "SELECT column_name FROM duckdb_columns() WHERE database_name = ? AND table_name = ?"
            " ORDER BY column_index"
        )
        sides = [
            [str(name) for (name,) in self._connect().execute(sql, [side, table]).fetchall()]
            for side in ("fresh", "old")
        ]
        return ", ".join(f'"{name}"' for name in sides[0] if name in sides[1])

    def _extent(self, table: str) -> tuple[int | None, int]:
        """How many rows the old table has, if that can be told, and where its last row ends."""
        rows = self._count("old", table)
        try:
            sql = f'SELECT max(rowid) FROM old."{table}"'  # noqa: S608
            last = self._connect().execute(sql).fetchall()[0][0]
        except duckdb.Error:
            self._close()
            sql = (
                "SELECT estimated_size FROM duckdb_tables()"
                " WHERE database_name = 'old' AND table_name = ?"
            )
            last = self._connect().execute(sql, [table]).fetchall()[0][0]
        return rows, int(-1 if last is None else last) + 1

    def _count(self, side: str, table: str) -> int | None:
        try:
            sql = f'SELECT count(*) FROM {side}."{table}"'  # noqa: S608
            return int(self._connect().execute(sql).fetchall()[0][0])
        except duckdb.Error:
            self._close()
            return None

    def _connect(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            config = duckdb_config(self._settings, self._work / "spilled")
            self._connection = duckdb.connect(":memory:", config=config)
            if self._old is not None:
                self._connection.execute(attach_to_read_sql(self._old, "old"))
            self._connection.execute(attach_sql(self._fresh, "fresh"))
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(duckdb.Error):
                self._connection.close()
            self._connection = None
