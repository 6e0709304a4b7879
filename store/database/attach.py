"""How a database file is opened: the settings that DuckDB does not keep in the file.

ROW_GROUP_SIZE is a property of the attachment: writing to the file through a plain `connect` undoes
it. See store.database.database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from store.settings.config import StoreSettings

ROW_GROUP_ROWS = 2048
STORAGE_VERSION = "v1.5.0"  # the oldest DuckDB that can open the file
# nothing is fetched from anywhere
_CLOSED: dict[str, Any] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


def attach_sql(file: Path, name: str) -> str:
    """Attaches a file for reading and writing."""
    options = f"ROW_GROUP_SIZE {ROW_GROUP_ROWS}, STORAGE_VERSION '{STORAGE_VERSION}'"
    return f"ATTACH {_quoted(file)} AS {name} ({options})"


def attach_to_read_sql(file: Path, name: str) -> str:
    """Attaches a file that stays as it is, its write-ahead log too."""
    return f"ATTACH {_quoted(file)} AS {name} (READ_ONLY)"


def duckdb_config(settings: StoreSettings, spill: Path) -> dict[str, Any]:
    """DuckDB's own settings. `spill`: the folder for what does not fit into memory."""
    return {
        "threads": settings.threads,
        "memory_limit": settings.memory_limit,
        "temp_directory": str(spill),
        **_CLOSED,
    }


@contextmanager
def reading() -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database for a look at a file; closed at the end."""
    connection = duckdb.connect(":memory:", config=dict(_CLOSED))
    try:
        yield connection
    finally:
        with suppress(duckdb.Error):
            connection.close()


def wal_of(file: Path) -> Path:
    """The write-ahead log of a database file."""
    return file.with_name(f"{file.name}.wal")


def _quoted(file: Path) -> str:
    return "'" + str(file).replace("'", "''") + "'"
