"""Lines of the journal that stay: those set aside, and copies. Forgetting and age reach them too.

Entries that are no readable files lie among them, as they were found in the journal. What cannot be
parsed may be of anybody: it is deleted when somebody is forgotten.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

import orjson

from store.database.forgetting import SubjectMatcher
from store.files.atomic import write_atomically
from store.jsontext import JsonObject

log = logging.getLogger("understudy.forget")


def clear_lines(folder: Path, matcher: SubjectMatcher) -> None:
    """Deletes the lines of the subjects from a folder's files, and those that cannot be parsed:
    they may be of the subjects too.

    Feedback names no user and no task: it goes with its trace, whichever file that is in.
    """
    forgotten: set[str] = set()  # traces among the lines
    with_feedback = [path for path in _entries(folder) if _clear(path, matcher, forgotten)]
    for path in with_feedback if forgotten else []:
        _clear(path, matcher, forgotten)


def delete_older(folder: Path, before: float) -> None:
    """Deletes the entries of a folder that were written before a time."""
    delete_old_ones(_entries(folder), before)


def delete_old_ones(paths: Sequence[Path], before: float) -> None:
    """Deletes those of the entries that were written before a time."""
    for path in paths:
        try:
            if path.lstat().st_mtime < before:
                remove_entry(path)
        except OSError as error:
            log.error("%s is too old, and cannot be deleted: %s", path, error)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*")) if folder.is_dir() else []


def _clear(path: Path, matcher: SubjectMatcher, forgotten: set[str]) -> bool:
    """Clears an entry, and adds the traces that it had of the subjects to those that are forgotten.
    Returns whether feedback is left in it.
    """
    try:
        return _clear_entry(path, matcher, forgotten)
    except OSError as error:
        log.error("%s may hold what is forgotten, and cannot be deleted: %s", path, error)
        return False


def _clear_entry(path: Path, matcher: SubjectMatcher, forgotten: set[str]) -> bool:
    state = path.lstat()
    # those with a dot are of a collector that was killed
    if path.name.startswith(".") or not stat.S_ISREG(state.st_mode) or not os.access(path, os.R_OK):
        remove_entry(path)
        return False
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    others, feedback = [], False
    for line in lines:
        read = _parsed(line)
        if read is not None and (
            matcher.matches(read) or (_is_feedback(read) and read.get("trace_id") in forgotten)
        ):
            forgotten.add(str(read.get("trace_id")))
        elif read is not None:
            others.append(line)
            feedback = feedback or _is_feedback(read)
    if not others:
        path.unlink(missing_ok=True)
    elif len(others) < len(lines):
        write_atomically(path, b"\n".join([*others, b""]))
        os.utime(path, (state.st_atime, state.st_mtime))  # it does not become younger
    return feedback


def _parsed(line: bytes) -> JsonObject | None:
    try:
        read = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return read if isinstance(read, dict) else None


def _is_feedback(read: JsonObject) -> bool:
    return read.get("feedback_id") is not None


def remove_entry(path: Path) -> None:
    """Deletes it, whatever it is. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
