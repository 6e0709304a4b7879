"""Puts a repaired database file in the place of the damaged one, which is kept.

    understudy.duckdb                            the damaged file
    understudy.duckdb.repaired-20260131T120000   the new file, whole: it takes the place from now on
    understudy-damaged-20260131T120000.duckdb    the damaged file, kept, with its write-ahead log

A file stands under the old name at every moment. What is interrupted is finished by whoever opens
the database next.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from store.database.attach import wal_of


def put_in_place(file: Path, fresh: Path) -> Path:
    """Puts a new file, which is closed, in the place of a damaged one. Returns where that is kept.

    Raises OSError.
    """
    stamp = time.strftime("%Y%m%dT%H%M%S")
    while _kept_name(file, stamp).exists():
        stamp += "x"
    repaired = file.with_name(f"{file.name}.repaired-{stamp}")
    fresh.chmod(0o600)
    _sync(fresh)
    fresh.rename(repaired)
    return _swap(file, repaired)


def finish_repair(file: Path) -> Path | None:
    """Finishes a repair that was interrupted; None when there is none. Raises OSError."""
    found = sorted(file.parent.glob(f"{file.name}.repaired-*")) if file.parent.is_dir() else []
    return _swap(file, found[-1]) if found else None


def _swap(file: Path, repaired: Path) -> Path:
    kept = _kept_name(file, repaired.name.rpartition("-")[2])
    if os.path.lexists(file) and not os.path.lexists(kept):
        try:
            os.link(file, kept, follow_symlinks=False)
        except OSError:  # a directory, or a file system without hard links
            file.rename(kept)
    if wal_of(file).exists():  # DuckDB would replay it into the new file
        wal_of(file).rename(wal_of(kept))
    for path in (kept, wal_of(kept)):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o600)
    repaired.replace(file)
    _sync(file.parent)
    return kept


def kept_files(file: Path) -> list[Path]:
    """The damaged files that were kept, with their logs."""
    return sorted(file.parent.glob(f"{file.stem}-damaged-*"))


def _kept_name(file: Path, stamp: str) -> Path:
    return file.with_name(f"{file.stem}-damaged-{stamp}{file.suffix}")


def remove(file: Path) -> None:
    """Deletes a database file with what DuckDB puts beside it, if it is there. Raises OSError."""
    for path in (file, wal_of(file), file.with_name(f"{file.name}.tmp")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
