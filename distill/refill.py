"""Copies of collected segments → store: what the store has lost is collected again.

A write-ahead log whose end is damaged loses the last commits without a word, and a database file
that was deleted loses all. The copies (store.files.kept) are in the order of the commits: if the
store has the last line of the last copy, it has them all.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import orjson

from distill.collect import Collected, collect
from store.database.collecting import lacks_records
from store.database.database import Database
from store.files.atomic import make_folder, open_regular
from store.files.kept import KeptSegments
from store.ids import new_id
from store.settings.teachers import Price

_FOLDER = "refilling"  # in the journal: a journal of its own, of what is collected again

log = logging.getLogger("understudy.collect")


def lacks_last_copy(db: Database, kept: KeptSegments) -> bool:
    """Whether the store does not have the record that was copied last."""
    try:
        line = orjson.loads(kept.last_line() or b"null")
    except orjson.JSONDecodeError:
        return False
    if not isinstance(line, dict):
        return False
    if line.get("feedback_id") is not None:
        return lacks_records(db, trace_ids=[], feedback_ids=[str(line["feedback_id"])])
    return lacks_records(db, trace_ids=[str(line.get("trace_id"))], feedback_ids=[])


def refill(
    db: Database, kept: KeptSegments, prices: Mapping[str, Price], *, everything: bool = True
) -> Collected:
    """Collects the copies again, newest first; what the store has is left alone.

    Not `everything`: up to the first file of which the store has all. Raises StoreError and
    OSError; what was collected until then stays.
    """
    folder = kept.folder.with_name(_FOLDER)
    total = Collected(0, 0, 0)
    try:
        for file in reversed(kept.files()):
            with kept.exclusive():  # nobody clears lines of it meanwhile
                if not _lacks_any(db, file.path):
                    if everything:
                        continue
                    break
                _clear(folder)
                link = make_folder(folder, linked=False) / f"{new_id()}-{file.path.name}"
                try:
                    os.link(file.path, link)
                except FileNotFoundError:
                    continue
                except OSError:  # a file system without hard links
                    shutil.copyfile(file.path, link)
                got = collect(db, folder, prices)
            total += got
    finally:
        _clear(folder)
    return total


def refill_what_is_lost(
    db: Database, kept: KeptSegments, prices: Mapping[str, Price]
) -> Collected | None:
    """Collects again what the store has lost at its end; None when it has the last copy."""
    if not lacks_last_copy(db, kept):
        return None
    got = refill(db, kept, prices, everything=False)
    if got.traces:
        log.warning(
            "%d traces that the database had lost were collected again from %s",
            got.traces,
            kept.folder,
        )
    return got


def _lacks_any(db: Database, file: Path) -> bool:
    """Whether the store lacks a record of a file."""
    ids: dict[str, list[str]] = {"trace_id": [], "feedback_id": []}
    with suppress(OSError), os.fdopen(open_regular(file), "rb") as lines:
        for line in lines:
            with suppress(orjson.JSONDecodeError):
                read = orjson.loads(line)
                if isinstance(read, dict):
                    kind = "trace_id" if read.get("feedback_id") is None else "feedback_id"
                    ids[kind].append(str(read.get(kind)))
    return lacks_records(db, trace_ids=ids["trace_id"], feedback_ids=ids["feedback_id"])


def _clear(folder: Path) -> None:
    """Also of one that was killed."""
    with suppress(OSError):
        shutil.rmtree(folder)
