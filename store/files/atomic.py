"""Files that are whole or absent: atomic writes, and reading lines of JSON."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from store.jsontext import JsonObject


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


def read_lines(path: Path) -> list[JsonObject]:
    """The JSON lines of a file; none when it is absent. A torn last line is left out."""
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    return [orjson.loads(line) for line in whole if line]
