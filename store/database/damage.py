"""Recognises a damaged database file: by DuckDB's errors, and by its length.

DuckDB opens a file that was cut in half, as long as the blocks that name its tables are there: only
who reads a missing block gets an error. And it drops the torn end of a write-ahead log without a
word: see distill.refill.
"""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from store.errors import StoreDamaged

_HEADER_BYTES = 3 * 4096  # before the first block of a DuckDB file
# what an error says of the machine, not of the file
_OF_THE_MACHINE = re.compile(
    r"Permission denied|No space left|Too many open files|Cannot allocate|Read-only file system"
    r"|Out of Memory|File too large"
)
_UNEXPECTED = (duckdb.InternalException, duckdb.FatalException, duckdb.SerializationException)
_WHY = (  # the first that fits, by what the error says
    (re.compile(r"Is a directory"), "it is a directory"),
    (re.compile(r"replaying WAL|Corrupt WAL"), "its write-ahead log cannot be read"),
    (re.compile(r"version number|newer version|storage version"), "of another version of DuckDB"),
    (re.compile(r"not a valid DuckDB|Extension"), "it is no DuckDB file"),
    (re.compile(r"Could not read enough bytes"), "it is cut short"),
    (re.compile(r"Corrupt|checksum"), "a part of it cannot be read"),
)


def damage(file: Path, why: str) -> StoreDamaged:
    """The error, with what to do."""
    return StoreDamaged(
        f"{file} is damaged ({why}): run `understudy repair`, which saves what can be read; "
        "until then requests are answered and journalled"
    )


def damage_at_open(file: Path, error: duckdb.Error) -> StoreDamaged | None:
    """What DuckDB's refusal to open the file says of it; None when it is about something else."""
    text = str(error)
    if _OF_THE_MACHINE.search(text):
        return None
    if file.is_file() and not file.stat().st_size:
        return damage(file, "it is empty")
    why = _why(text)
    if why is None and (isinstance(error, _UNEXPECTED) or type(error) is duckdb.Error):
        why = "it cannot be read"
    return damage(file, why) if why else None


def damage_in_use(file: Path, error: duckdb.Error) -> StoreDamaged | None:
    """The damage that an operation on the open file has met; None when that failed otherwise."""
    text = str(error)
    cut_short = "Could not read enough bytes" in text and str(file) in text
    corrupt = "Corrupt database file" in text or "Corrupt WAL file" in text
    return damage(file, _why(text) or "") if cut_short or corrupt else None


def is_cut_short(connection: duckdb.DuckDBPyConnection, name: str, file: Path) -> bool:
    """Whether the file of an attached database is shorter than its blocks, and a block is missing.

    All of it is read where it is shorter, as the last blocks may be free.
    """
    sizes = connection.execute(
        "SELECT block_size, total_blocks FROM pragma_database_size() WHERE database_name = ?",
        [name],
    ).fetchall()
    if not sizes or file.stat().st_size >= _HEADER_BYTES + sizes[0][0] * sizes[0][1]:
        return False
    return bool(unreadable_tables(connection, name))


def unreadable_tables(connection: duckdb.DuckDBPyConnection, name: str) -> list[str]:
    """The tables of an attached database of which a row cannot be read. Reads all of them."""
    return [
        table for table in tables_of(connection, name) if not _readable(connection, name, table)
    ]


def tables_of(connection: duckdb.DuckDBPyConnection, name: str) -> list[str]:
    """The tables of an attached database."""
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = ? ORDER BY table_name",
        [name],
    )
    return [str(table) for (table,) in found.fetchall()]


def _readable(connection: duckdb.DuckDBPyConnection, name: str, table: str) -> bool:
    try:
        # its own names, from its catalogue
        sql = f'SELECT bit_xor(hash(r)) FROM {name}."{table}" r'  # noqa: S608
        connection.execute(sql).fetchall()
    except duckdb.Error:
        return False
    return True


def _why(text: str) -> str | None:
    return next((why for pattern, why in _WHY if pattern.search(text)), None)
