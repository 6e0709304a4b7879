"""Files that are whole or absent: atomic writes, and line files that survive a torn last line."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import orjson


def write_atomically(
    path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True
) -> None:
    """Writes a file that readers see whole or not at all, also after a crash.

    Not `durable`: only the kernel has it on return, and a power cut may leave it empty.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def append_line(path: Path, record: Any) -> None:
    """Appends one JSON line with one write, so that a kill leaves it whole or absent.

    Raises OSError when it does not fit on the disk; the file is then as it was.
    """
    line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(handle).st_size
        if os.write(handle, line) < len(line):
            os.ftruncate(handle, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(handle)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; none when it is absent. A torn last line is left out."""
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    return [orjson.loads(line) for line in whole if line]


def drop_torn_line(path: Path) -> None:
    """Cuts a last line without its end off, so that the next one does not go on in its middle."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
