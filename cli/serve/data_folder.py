"""The lock of the data folder, which one `understudy serve` holds, and its note in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import orjson

from store.errors import ConfigError, ProductError

LOCK_NAME = "serve.lock"
# of a note, so that a write replaces the one before as a whole
_NOTE_BYTES = 8192


@dataclass(frozen=True, slots=True)
class ServeNote:
    """The server of a data folder, and the outcome of its last reload."""

    pid: int
    url: str  # where clients reach it, without /v1
    config: str = ""  # the config's path
    reloads: int = 0  # how many have begun
    reloaded: int = 0  # how many have ended
    said: str = ""  # the outcome of the last one, in words
    applied: bool = True  # whether it took effect
    # a key with all rights, for the command line of whoever may read this file
    operator_key: str = field(default="", repr=False)


@contextlib.contextmanager
def hold_data_dir(folder: Path) -> Iterator[int]:
    """Creates the data folder, readable by its owner alone, and locks it.

    Yields the descriptor of the locked file. Raises ProductError when another `serve` holds it,
    ConfigError when it cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(
            f"data_dir {folder} cannot be used ({error.strerror}): "
            "give it to the user that runs understudy, or choose another"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = running_server(folder)
        who = f" (PID {holder.pid}, {holder.url})" if holder else ""
        os.close(handle)
        raise ProductError(
            f"another understudy serves from {folder}{who}: stop it, or use another data_dir"
        ) from None
    before = os.umask(0o077)  # for what this process and its children write there
    try:
        _make_private(folder)
        os.ftruncate(handle, 0)
        yield handle
        os.ftruncate(handle, 0)
    finally:
        os.umask(before)
        os.close(handle)


def _make_private(folder: Path) -> None:
    """Takes from others what a data folder of before lets them read. Raises ConfigError.

    Files in it that belong to another user stay: nobody reaches them through a closed folder.
    """
    try:
        _take_from_others(folder)
    except OSError as error:
        raise ConfigError(
            f"data_dir {folder} can be read by others, and that cannot be changed "
            f"({error.strerror}): give it to the user that runs understudy, or chmod it to 0700"
        ) from None
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(PermissionError):
                _take_from_others(Path(place, name))


def _take_from_others(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o077:
            path.chmod(stat.S_IMODE(status.st_mode) & 0o700)


def leave_note(lock: int, note: ServeNote) -> None:
    """Replaces the note."""
    os.pwrite(lock, orjson.dumps(note).ljust(_NOTE_BYTES), 0)


def running_server(folder: Path) -> ServeNote | None:
    """The note of the `serve` on this data folder; None without one.

    A `serve` that was killed leaves it there.
    """
    try:
        note = orjson.loads((folder / LOCK_NAME).read_bytes())
        names = [known.name for known in fields(ServeNote)]
        return ServeNote(**{name: note[name] for name in names if name in note})
    except (OSError, ValueError, TypeError):  # none, torn, or without pid and url
        return None


def is_held(folder: Path) -> bool:
    """Whether a `serve` holds this data folder now."""
    try:
        handle = os.open(folder / LOCK_NAME, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
