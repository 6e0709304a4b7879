"""Database files as a full disk, a power cut or a hand leaves them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from distill.collect import collect
from store.database.database import Database
from store.files.kept import KeptSegments
from store.settings.config import StoreSettings
from tests.helpers.samples import a_trace, write_segment

TRACES = 5000  # in the file: some row groups
LOGGED = 60  # more, in the write-ahead log
PREFIX = "understudy.duckdb"


def a_database(folder: Path, *, like: Path | None = None) -> Path:
    """A database as a killed process leaves it, with its write-ahead log; its traces are kept.

    `like`: one that is copied, which is faster. Returns the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / PREFIX
    if like is not None:
        for path in [path for path in folder.iterdir() if path.name.startswith(PREFIX)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(like.parent, folder, dirs_exist_ok=True)
        return file
    made = folder / "made"
    with Database(made / PREFIX, StoreSettings()) as db:
        kept = KeptSegments(folder / "journal", days=3, megabytes=100)
        for count in (TRACES, LOGGED):
            texts = (os.urandom(400).hex() for _ in range(count))
            write_segment(folder / "journal", *(a_trace(input_messages=text) for text in texts))
            collect(db, folder / "journal", {}, kept)
            if count == TRACES:
                db.checkpoint()
        for path in made.iterdir():
            shutil.copy(path, folder)
    shutil.rmtree(made)
    return file


def wal_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.wal")


def cut_in_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _replaced(file: Path, content: bytes | None) -> None:
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)


def overwrite(path: Path, at: float, length: int) -> None:
    """Overwrites a part, from this share of the file on."""
    with path.open("r+b") as opened:
        opened.seek(int(path.stat().st_size * at))
        opened.write(os.urandom(length))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut in half": cut_in_half,
    "without its last block": lambda file: os.truncate(file, file.stat().st_size - 300_000),
    "cut to its header": lambda file: os.truncate(file, 12_288),
    "emptied": lambda file: os.truncate(file, 0),
    "another format": lambda file: _replaced(file, b"SQLite format 3\0" + bytes(8000)),
    "noise": lambda file: _replaced(file, os.urandom(100_000)),
    "a directory": lambda file: _replaced(file, None),
    "another version": lambda file: overwrite(file, 0.0, 64),
    "noise in its log": lambda file: overwrite(wal_of(file), 0.5, 500),
}
