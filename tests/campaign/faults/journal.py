"""Odd entries in the journal, and segments that somebody removes, copies or damages."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from store.files.atomic import open_regular, read_regular
from store.ids import new_id
from tests.campaign.faults.registry import fault
from tests.campaign.scene import Scene


def _directory(path: Path, draw: random.Random) -> None:
    path.mkdir()
    if draw.random() < 0.5:
        (path / "inside").write_bytes(b"x")


def _dangling(path: Path, draw: random.Random) -> None:
    path.symlink_to(draw.choice(("/nowhere/at/all", path.name, "../routes.json", "/etc/passwd")))


def _fifo(path: Path, draw: random.Random) -> None:
    os.mkfifo(path)


def _socket(path: Path, draw: random.Random) -> None:
    with socket.socket(socket.AF_UNIX) as made, suppress(OSError):  # a path may be too long
        made.bind(str(path))


def _unreadable(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"{}\n")
    path.chmod(0)


def _bytes(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.randbytes(draw.choice((0, 1, 100, 70_000))))


def _lines(path: Path, draw: random.Random) -> None:
    line = draw.choice((b"{}\n", b"[]\n", b'{"trace_id": "x"}\n', b"\n", b"null\n", b'{"a":\n'))
    path.write_bytes(line * draw.randint(1, 50))


def _deep(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"[" * 100_000 + b"\n" + b'{"a":' * 10_000 + b"\n")


def _long_line(path: Path, draw: random.Random) -> None:
    path.write_bytes(b'{"trace_id": "' + b"x" * (4 << 20))


_MAKERS: tuple[Callable[[Path, random.Random], None], ...] = (
    _directory,
    _dangling,
    _fifo,
    _socket,
    _unreadable,
    _bytes,
    _lines,
    _deep,
    _long_line,
)
_NAMES = (
    "{id}-0.jsonl",
    "{id}-0.open",
    ".{id}-0.new",
    "0.jsonl",
    "a b'c.jsonl",
    "*.jsonl",
    "[x]?.jsonl",
    "back\\slash.jsonl",
    "lin\ne.jsonl",
    "{id}.txt",
    "ü.jsonl",
)


def _make(path: Path, draw: random.Random) -> None:
    """Something odd, where nothing is: to open a pipe that is there would wait for ever."""
    if not os.path.lexists(path):
        with suppress(OSError):
            draw.choice(_MAKERS)(path, draw)


@fault("an odd entry in the journal", weight=8)
async def odd_entry(scene: Scene, draw: random.Random) -> None:
    """Stays until the product has dealt with it, or for good."""
    folder = scene.data_dir / "journal"
    name = draw.choice(_NAMES).format(id=new_id())
    _make(folder / name, draw)
    await asyncio.sleep(draw.uniform(0, 0.5))


@fault("a segment comes twice", weight=3)
async def copied_segment(scene: Scene, draw: random.Random) -> None:
    """Whole, or with a line cut off; under another name, before or after it is collected."""
    folder = scene.data_dir / "journal"
    for _ in range(40):
        for segment in folder.glob("*.jsonl"):
            with suppress(OSError):
                content = read_regular(segment, 1 << 24)
                if draw.random() < 0.5:
                    content = content[: draw.randrange(len(content) + 1)]
                await asyncio.sleep(draw.choice((0.0, 0.6)))
                (folder / f"{new_id()}-copy.jsonl").write_bytes(content)
                return
        await asyncio.sleep(0.02)


@fault("a segment is deleted while it is written", "disk", "workers", "server", weight=2)
async def deleted_segment(scene: Scene, draw: random.Random) -> None:
    """Its writer has it still; nobody may end the writer before it has written it again."""
    for segment in (scene.data_dir / "journal").glob("*.open"):
        with suppress(OSError):
            if _has_a_writer(segment):
                segment.unlink()
    await asyncio.sleep(1.5)


def _has_a_writer(segment: Path) -> bool:
    """Whether somebody holds its lock. What a dead worker has left is nowhere else."""
    handle = open_regular(segment)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@fault("what was set aside is deleted", weight=1)
async def emptied_damaged(scene: Scene, draw: random.Random) -> None:
    """Or something else stands in its place."""
    folder = scene.data_dir / "journal" / "damaged"
    with suppress(OSError):
        shutil.rmtree(folder)
        if draw.random() < 0.5:
            folder.write_bytes(b"no folder")
