"""An append-only file of JSON lines: a record of work that must not be done, or paid for, twice.

Each line is on its way to the disk before anything else is done with what it says. A process that
is killed while it writes leaves a last line without an end; the next one to load the file drops it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import orjson

from store.files.atomic import make_folder, read_lines
from store.jsontext import JsonObject


class LineLog:
    """One such file. One process appends to it at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> list[JsonObject]:
        """The lines so far, oldest first; none when there is no file. Drops a torn last line.

        To be called before the first `append` of a process, which would go on in the torn line.
        """
        if self.path.exists() and not (content := self.path.read_bytes()).endswith(b"\n"):
            os.truncate(self.path, content.rfind(b"\n") + 1)
        return read_lines(self.path)

    def append(self, record: Any) -> None:
        """Appends a line with one write, so that a kill leaves it whole or absent.

        Raises OSError when it does not fit on the disk; the file is then as it was.
        """
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        make_folder(self.path.parent)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(handle).st_size
            if os.write(handle, line) < len(line):
                os.ftruncate(handle, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)
