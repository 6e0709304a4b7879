"""Files that are whole or absent: atomic writes, careful reading, and lines of JSON.

The files and folders below the data folder are ours: something of another kind that stands in the
place of one, such as a directory named like a file, is moved aside and makes room for it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson

from store.ids import new_id
from store.jsontext import JsonObject

ASIDE = ".aside"  # ends the name of what stood in the place of a file or a folder of ours

log = logging.getLogger("understudy.files")


def make_folder(folder: Path, *, linked: bool = True) -> Path:
    """Makes a folder of ours, for its owner alone; what is no folder makes room. Raises OSError.

    `linked`: whether it may be a link to a folder elsewhere.
    """
    if not linked and folder.is_symlink():
        _move_aside(folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        _move_aside(folder)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def make_room(file: Path) -> None:
    """Moves aside what is no regular file and stands in the place of one. Raises OSError."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(file.lstat().st_mode):
            _move_aside(file)


def _move_aside(path: Path) -> None:
    """Renames what stands in the place of a file or a folder of ours. Raises OSError."""
    place = path.with_name(f"{path.name}.{new_id()}{ASIDE}")
    path.rename(place)
    log.warning("%s stood in the place of a file of ours, and is %s now", path, place.name)


def write_atomically(
    path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True
) -> None:
    """Writes a file that readers see whole or not at all, also after a crash.

    Not `durable`: only the kernel has it on return, and a power cut may leave it empty. A directory
    in its place makes room. Raises OSError.
    """
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        try:
            part.replace(path)
        except IsADirectoryError:
            _move_aside(path)
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Opens a regular file; never blocks, and follows no link. Raises OSError for anything else."""
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "not a regular file")
        raise OSError(errno.ENXIO, kind)
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def read_regular(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Raises OSError, also when it is longer."""
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content


def read_lines(path: Path) -> list[JsonObject]:
    """The JSON lines of a file; none when it is absent. A torn last line is left out."""
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    return [orjson.loads(line) for line in whole if line]
