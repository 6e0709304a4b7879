"""Lines of the journal that are in no table: those set aside, which forgetting and age reach too.

Entries that are no readable files lie among them, as they were found in the journal. What cannot be
parsed may be of anybody: it is deleted when somebody is forgotten.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from pathlib import Path

import orjson

from store.database.forgetting import SubjectMatcher
from store.files.atomic import write_atomically

log = logging.getLogger("understudy.forget")


def clear_lines(folder: Path, matcher: SubjectMatcher) -> None:
    """Deletes the lines of the subjects from a folder's files, and those that cannot be parsed:
    they may be of the subjects too.
    """
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        try:
            _clear_entry(path, matcher)
        except OSError as error:
            log.error("%s may hold what is forgotten, and cannot be deleted: %s", path, error)


def delete_older(folder: Path, before: float) -> None:
    """Deletes the entries of a folder that were written before a time."""
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        try:
            if path.lstat().st_mtime < before:
                _remove(path)
        except OSError as error:
            log.error("%s is too old, and cannot be deleted: %s", path, error)


def _clear_entry(path: Path, matcher: SubjectMatcher) -> None:
    state = path.lstat()
    # those with a dot are of a collector that was killed
    if path.name.startswith(".") or not stat.S_ISREG(state.st_mode) or not os.access(path, os.R_OK):
        _remove(path)
        return
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    others = [line for line in lines if _is_of_others(line, matcher)]
    if not others:
        path.unlink(missing_ok=True)
    elif len(others) < len(lines):
        write_atomically(path, b"\n".join([*others, b""]))
        os.utime(path, (state.st_atime, state.st_mtime))  # it does not become younger


def _is_of_others(line: bytes, matcher: SubjectMatcher) -> bool:
    try:
        read = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return isinstance(read, dict) and not matcher.matches(read)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
