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
from store.files.atomic import make_room, open_regular, read_regular

LOCK_NAME = "serve.lock"
# of a note, so that a write replaces the one before as a whole
_NOTE_BYTES = 8192
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


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


class HeldFolder:
    """The lock of a data folder, and the note in its file."""

    def __init__(self, folder: Path, handle: int) -> None:
        """`handle`: of the locked file."""
        self._file = folder.absolute() / LOCK_NAME
        self._handle = handle
        self._note = b""

    def leave_note(self, note: ServeNote) -> None:
        """Replaces the note. Raises OSError."""
        self._note = orjson.dumps(note).ljust(_NOTE_BYTES)
        os.pwrite(self._handle, self._note, 0)

    def restore(self) -> bool:
        """Makes the file again that somebody has deleted, replaced or edited; whether it did.

        Where that fails now, the next call tries again.
        """
        try:
            if not self._is_ours():
                self._take_again()
            elif os.pread(self._handle, _NOTE_BYTES + 1, 0) == self._note:
                return False
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, self._note, 0)
        except OSError:  # such as that of another `serve`, which has it by now
            return False
        return True

    def _is_ours(self) -> bool:
        """Whether the file under its name is the one that is locked."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(self._file.lstat(), os.fstat(self._handle))
        return False

    def _take_again(self) -> None:
        """Makes and locks a new file. Raises OSError."""
        make_room(self._file)
        fresh = os.open(self._file, _FLAGS, 0o600)
        try:
            fcntl.flock(fresh, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(fresh, 0o600)  # it may be somebody else's copy
            os.dup2(fresh, self._handle, inheritable=False)
        finally:
            os.close(fresh)


@contextlib.contextmanager
def hold_data_dir(folder: Path) -> Iterator[HeldFolder]:
    """Creates the data folder, readable by its owner alone, and locks it.

    Raises ProductError when another `serve` holds it, ConfigError when it cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_room(folder / LOCK_NAME)
        handle = os.open(folder / LOCK_NAME, _FLAGS, 0o600)
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
        yield HeldFolder(folder, handle)
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


def running_server(folder: Path) -> ServeNote | None:
    """The note of the `serve` on this data folder; None without one.

    A `serve` that was killed leaves it there.
    """
    try:
        note = orjson.loads(read_regular(folder / LOCK_NAME, _NOTE_BYTES))
        names = [known.name for known in fields(ServeNote)]
        return ServeNote(**{name: note[name] for name in names if name in note})
    except (OSError, ValueError, TypeError):  # none, torn, or without pid and url
        return None


def is_held(folder: Path) -> bool:
    """Whether a `serve` holds this data folder now."""
    try:
        handle = open_regular(folder / LOCK_NAME, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
