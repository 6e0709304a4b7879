"""`understudy repair`: saves what can be read of a damaged database, and fills it from the copies.

The new file is whole before it takes the place of the old one, which is kept. What is missing is
collected again from the copies of the last days (store.files.kept). Doing it again does nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from distill.ownership import owned
from distill.refill import refill
from store.database.database import Database
from store.database.replace import finish_repair, put_in_place, remove
from store.database.salvage import SavedTable, fault_of, salvage
from store.database.schema import MIGRATIONS
from store.errors import StoreError, StoreLocked
from store.files.kept import KeptSegments
from store.settings.config import Config
from store.settings.teachers import prices

# the tables that the journal's copies hold, each with the query that counts its rows
FILLED = {"traces": "count_traces", "feedback": "count_feedback"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairedTable:
    """What became of a table's rows."""

    name: str
    saved: int  # read from the old file
    filled: int  # from the journal's copies
    lost: int | None  # None: nobody knows how many there were


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What a repair found and did."""

    fault: str | None  # None: all of the database can be read
    kept: str | None  # the name of the old file; None when it is in its place still
    tables: tuple[RepairedTable, ...]  # those that have, or had, rows

    @property
    def filled(self) -> int:
        """Rows that came from the journal's copies."""
        return sum(table.filled for table in self.tables)


def repair(config: Config) -> Repair:
    """Repairs the database of a data folder. Raises StoreLocked when a server owns it, StoreError
    and OSError when the new file cannot be written; the old one is in its place then.
    """
    file = config.database_file.absolute()
    try:
        with owned(config.data_dir, max_wait_s=1.0):
            finished = finish_repair(file)
            fault = fault_of(file) if os.path.lexists(file) else None
            found = _fill(config, file) if fault is None else _renew(config, file, fault)
    except StoreLocked:
        raise StoreLocked(
            f"{file} is in use by a server that can read it: stop `understudy serve`, then repair"
        ) from None
    if found.kept is None and finished is not None:
        return Repair(fault=found.fault, kept=finished.name, tables=found.tables)
    return found


def _fill(config: Config, file: Path) -> Repair:
    """What a database that can be read has lost all the same: the end of its log, or all of it."""
    kept = _copies(config)
    if not os.path.lexists(file) and not kept.files():
        return Repair(fault=None, kept=None, tables=())
    with Database(file, config.store) as db:
        before = {table: _count(db, table) for table in FILLED}
        refill(db, kept, prices(config))
        tables = [
            RepairedTable(name=table, saved=n, filled=_count(db, table) - n, lost=0)
            for table, n in before.items()
        ]
    return Repair(fault=None, kept=None, tables=tuple(t for t in tables if t.filled))


def _renew(config: Config, file: Path, fault: str) -> Repair:
    """A new file in the place of the damaged one."""
    fresh = file.with_name(f"{file.name}.repairing")
    try:
        saved = salvage(file, fresh, config.store, MIGRATIONS)
        with Database(fresh, config.store) as db:
            refill(db, _copies(config), prices(config))
            tables = [_repaired(db, table) for table in saved]
        kept = put_in_place(file, fresh)
    except OSError as error:
        raise StoreError(f"{file}: cannot be repaired: {error.strerror}") from None
    finally:
        remove(fresh)
    shown = (t for t in tables if t.saved or t.filled or t.lost is None or t.lost)
    return Repair(fault=fault, kept=kept.name, tables=tuple(shown))


def _repaired(db: Database, table: SavedTable) -> RepairedTable:
    filled = max(0, _count(db, table.name) - table.saved) if table.name in FILLED else 0
    lost = None if table.rows is None else max(0, table.rows - table.saved - filled)
    return RepairedTable(name=table.name, saved=table.saved, filled=filled, lost=lost)


def _count(db: Database, table: str) -> int:
    return int(db.query(FILLED[table])[0]["rows"])


def _copies(config: Config) -> KeptSegments:
    # none of them is too old for a repair, or too much
    return KeptSegments(config.journal_dir, days=float("inf"), megabytes=float("inf"))
