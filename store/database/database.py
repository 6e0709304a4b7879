"""The one DuckDB file, owned by the control plane.

How it is opened decides how it behaves: attached to an in-memory database, with row groups of
2,048 rows. A checkpoint rewrites the unfinished row group: with the stock 122,880 rows of some 5 KB
that has stalled writers for half a minute, with these it is well under a second of CPU time. The
size is a property of the attachment, not of the file: writing to the file through a plain `connect`
undoes it.

Threads: every operation has a cursor of its own. Writers take turns, because two writers of one
table may conflict; readers wait neither for a writer nor for each other. When a checkpoint fails,
as on a full disk, DuckDB refuses every operation until the file is attached again. The next
operation does that; committed transactions stay committed.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

from store.database.attach import attach_sql, duckdb_config
from store.database.damage import damage, damage_at_open, damage_in_use, is_cut_short
from store.database.queries import load_queries
from store.database.replace import finish_repair
from store.database.schema import MIGRATIONS, load_migrations, migrate
from store.errors import InputRefused, StoreDamaged, StoreError, StoreLocked
from store.settings.config import StoreSettings

DatabaseRow = dict[str, Any]  # by column name; each query knows its columns

log = logging.getLogger("understudy.store")

_COMMITTED = "COMMIT succeeded"
_INVALIDATED = "invalidated"
_LOCKED = re.compile(r"Could not set lock on file.*?(?:\(PID (\d+)\)|$)", re.DOTALL)
# their messages have paths, sizes and our own SQL in them, never a value
_SAFE_TO_SHOW = (
    duckdb.IOException,
    duckdb.TransactionException,
    duckdb.OutOfMemoryException,
    duckdb.CatalogException,
    duckdb.BinderException,
    duckdb.ParserException,
)
# they say nothing about what a query was given
_OF_THE_DATABASE = (duckdb.FatalException, duckdb.InternalException)


class Database:
    """The database file, open from construction to `close`. Safe to use from several threads.

    Raises StoreLocked when another process owns the file, StoreDamaged when it is damaged, and
    StoreError when it cannot be opened or is of a newer version; later StoreError when an operation
    fails, StoreDamaged when it met a damaged part. A failed operation has changed nothing.
    """

    def __init__(
        self, file: Path, settings: StoreSettings, *, migrations: Path = MIGRATIONS
    ) -> None:
        self._file = file.absolute()
        self._temp = self._file.with_name(f"{self._file.name}.tmp")
        self._fresh = self._file.with_name(f"{self._file.name}.fresh")
        self._settings = settings
        self._queries = load_queries()
        self._migrations = load_migrations(migrations)
        self._writing = threading.RLock()
        self._own = threading.local()  # `.cursor`: of the transaction that this thread is in
        self._gate = threading.Condition()  # guards the three below
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._users = 0  # running operations
        self._began: dict[int, float] = {}  # when each of them began, by the id of its cursor
        self._rewriting = False
        self._broken = True  # to be attached before the next operation
        self._closed = False
        self.damage: StoreDamaged | None = None  # the last that an operation has met
        with self._cursor():
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits for running operations, then closes the file. Idempotent."""
        with self._gate:
            self._closed = True
            self._gate.wait_for(lambda: not self._users)
            self._detach()

    def query(self, name: str, /, **params: Any) -> list[DatabaseRow]:
        """Runs a named query and returns its rows by column name; UUIDs as strings."""
        with self._cursor() as cursor:
            self._execute_named(cursor, name, params)
            try:
                rows, columns = cursor.fetchall(), cursor.description or []
            except duckdb.Error as error:
                raise self._store_error(error, name) from None
        names = [column[0] for column in columns]
        uuids = [i for i, column in enumerate(columns) if str(column[1]) == "UUID"]
        if not uuids:
            return [dict(zip(names, row, strict=True)) for row in rows]
        return [dict(zip(names, _uuids_as_text(row, uuids), strict=True)) for row in rows]

    def execute(self, name: str, /, **params: Any) -> None:
        """Runs a named query that writes, in this thread's transaction or one of its own."""
        with self.transaction(), self._cursor() as cursor:
            self._execute_named(cursor, name, params)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything that this thread does inside is committed as a whole, or rolled back.

        A transaction inside another joins it. Other writers wait meanwhile, so keep it short.
        """
        if getattr(self._own, "cursor", None) is not None:
            yield
            return
        with self._writing, self._cursor() as cursor:
            self._execute_sql(cursor, "BEGIN")
            self._own.cursor = cursor
            try:
                yield
            except BaseException:
                self._roll_back(cursor)
                raise
            finally:
                self._own.cursor = None
            self._commit(cursor)

    @property
    def oldest_operation_s(self) -> float:
        """How long the oldest running operation has been running; `rewrite` may take its time."""
        began = list(self._began.values())
        return 0.0 if self._rewriting or not began else time.monotonic() - min(began)

    def rewrite(self) -> None:
        """Rewrites the file from its rows, so that no byte of a deleted row stays.

        DuckDB neither shrinks a file nor overwrites freed blocks, not by CHECKPOINT and not by
        VACUUM. Needs as much space again. Writers wait until it is done, readers only while the new
        file replaces the old one. Raises StoreError, with the old file in place, when it cannot be
        written. Not to be called inside a transaction.
        """
        fresh = self._fresh
        with self._writing:
            self._rewriting = True
            try:
                fresh.unlink(missing_ok=True)
                with self._cursor() as cursor:
                    self._execute_sql(cursor, "CHECKPOINT store")
                    self._execute_sql(cursor, attach_sql(fresh, "fresh"))
                    try:
                        self._execute_sql(cursor, "COPY FROM DATABASE store TO fresh")
                    finally:
                        with suppress(duckdb.Error):
                            cursor.execute("DETACH fresh")
                with self._gate:
                    self._gate.wait_for(lambda: not self._users)
                    self._detach()
                    self._broken = True
                    self._replace_file(fresh)
            except OSError as error:
                raise StoreError(f"{self._file}: cannot be written anew: {error}") from None
            finally:
                self._rewriting = False
                with suppress(OSError):
                    fresh.unlink(missing_ok=True)

    def _replace_file(self, fresh: Path) -> None:
        """Replaces the closed file, and deletes what DuckDB has spilled to disk."""
        if self._file.with_name(f"{self._file.name}.wal").exists():
            raise StoreError(f"{self._file}: cannot be written anew: it was not closed in full")
        fresh.chmod(self._file.stat().st_mode)
        for path in (fresh, fresh.parent):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        fresh.replace(self._file)
        shutil.rmtree(self._temp, ignore_errors=True)

    def checkpoint(self) -> None:
        """Moves the write-ahead log into the file. Writers wait meanwhile, readers do not."""
        with self._writing, self._cursor() as cursor:
            self._execute_sql(cursor, "CHECKPOINT store")

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The cursor of this thread's transaction, or a fresh one."""
        own = getattr(self._own, "cursor", None)
        if own is not None:
            yield own
            return
        with self._gate:
            if self._broken:  # no cursor may stay open on the old connection
                self._gate.wait_for(lambda: not self._users or not self._broken)
            if self._closed:
                raise StoreError(f"{self._file} is closed")
            if self._broken or self._connection is None:
                self._attach()
            assert self._connection is not None
            cursor = self._connection.cursor()
            self._users += 1
            self._began[id(cursor)] = time.monotonic()
        try:
            self._execute_sql(cursor, "USE store")  # cursors do not inherit it
            yield cursor
        finally:
            with suppress(duckdb.Error):
                cursor.close()
            with self._gate:
                self._users -= 1
                self._began.pop(id(cursor), None)
                self._gate.notify_all()

    def _attach(self) -> None:
        self._detach()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(f"{self._file.parent}: cannot be made: {error.strerror}") from None
        try:
            finish_repair(self._file)
        except OSError as error:
            raise StoreError(f"{self._file}: its repair cannot be ended: {error}") from None
        connection = self._connect()
        try:
            connection.execute(attach_sql(self._file, "store"))
            if is_cut_short(connection, "store", self._file):
                raise damage(self._file, "it is cut short")
            connection.execute("USE store")
            with suppress(OSError):  # of a rewrite that was killed; the lock is ours
                self._fresh.unlink(missing_ok=True)
            migrate(connection, self._migrations, at=time.time())
        except (duckdb.Error, StoreError) as error:
            connection.close()
            if isinstance(error, StoreError):
                raise
            raise self._open_error(error) from None
        self._connection, self._broken = connection, False

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """An in-memory database with our settings, to attach the file to."""
        try:
            return duckdb.connect(
                ":memory:",
                config=duckdb_config(self._settings, self._temp),
            )
        except duckdb.Error as error:
            limit = self._settings.memory_limit
            raise StoreError(f"store.memory_limit {limit} cannot be set: {error}") from None

    def _detach(self) -> None:
        if self._connection is not None:
            with suppress(duckdb.Error):
                self._connection.close()
            self._connection = None

    def _execute_named(
        self, cursor: duckdb.DuckDBPyConnection, name: str, params: Mapping[str, object]
    ) -> None:
        try:
            cursor.execute(self._queries[name].sql, params)
        except duckdb.Error as error:
            raise self._store_error(error, name) from None

    def _execute_sql(self, cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
        try:
            cursor.execute(sql)
        except duckdb.Error as error:
            raise self._store_error(error, sql) from None

    def _commit(self, cursor: duckdb.DuckDBPyConnection) -> None:
        try:
            cursor.execute("COMMIT")
        except duckdb.Error as error:
            failure = self._store_error(error, "COMMIT")
            if _COMMITTED not in str(error):
                self._roll_back(cursor)
                raise failure from None
            log.warning("committed, but the checkpoint failed: %s", failure)

    def _roll_back(self, cursor: duckdb.DuckDBPyConnection) -> None:
        with suppress(duckdb.Error):  # nothing to roll back when COMMIT failed
            cursor.execute("ROLLBACK")

    def _store_error(self, error: duckdb.Error, doing: str) -> StoreError:
        """A StoreError for one of DuckDB's, without any value that a client or a teacher sent."""
        if _INVALIDATED in str(error):
            self._broken = True
        damaged = damage_in_use(self._file, error)
        if damaged is not None:
            if self.damage is None:
                log.error("%s: %s", doing, error)
            self.damage = damaged
            return damaged
        if isinstance(error, _OF_THE_DATABASE) or type(error) is duckdb.Error:
            return StoreError(f"{self._file}: {doing}: {type(error).__name__}")
        if isinstance(error, _SAFE_TO_SHOW):
            return StoreError(f"{self._file}: {doing}: {error}")
        return InputRefused(f"{self._file}: {doing}: {type(error).__name__}")

    def _open_error(self, error: duckdb.Error) -> StoreError:
        locked = _LOCKED.search(str(error))
        if locked is None:
            damaged = damage_at_open(self._file, error)
            if damaged is not None:
                log.warning("DuckDB: %s", error)
            return damaged or StoreError(f"{self._file} cannot be opened: {error}")
        owner = f"process {locked[1]}" if locked[1] else "another process"
        return StoreLocked(f"{self._file} is in use by {owner}: stop it, or use another data_dir")


def _uuids_as_text(row: tuple[Any, ...], uuids: list[int]) -> list[Any]:
    values = list(row)
    for i in uuids:
        if values[i] is not None:
            values[i] = str(values[i])
    return values
