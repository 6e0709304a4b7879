"""Files of the data folder that somebody deletes, edits, or replaces by something odd."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

from store.files.atomic import open_regular
from tests.campaign.faults.registry import fault
from tests.campaign.scene import Scene


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _spoil(path: Path, draw: random.Random) -> None:
    """Something else in the place of a file."""
    with suppress(OSError):
        way = draw.choice(("gone", "empty", "bytes", "JSON", "directory", "link", "pipe"))
        if way in ("bytes", "JSON"):
            texts = (b"{}", b"[]", b"null", b'{"routes": {}}')
            content = draw.choice(texts) if way == "JSON" else draw.randbytes(200)
            with os.fdopen(open_regular(path, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(content)
            return
        _remove(path)
        if way == "empty":
            path.write_bytes(b"")
        elif way == "directory":
            path.mkdir()
            (path / "inside").write_bytes(b"x")
        elif way == "link":
            path.symlink_to(draw.choice(("/nowhere/at/all", "/etc/passwd")))
        elif way == "pipe":
            os.mkfifo(path)


@fault("routes.json is spoilt", weight=5)
async def routes(scene: Scene, draw: random.Random) -> None:
    _spoil(scene.data_dir / "routes.json", draw)
    await asyncio.sleep(draw.uniform(0, 1.0))


@fault("an accepted config is spoilt", weight=4)
async def accepted(scene: Scene, draw: random.Random) -> None:
    folder = scene.data_dir / "accepted"
    if draw.random() < 0.3:
        _spoil(folder, draw)
    else:
        with suppress(OSError):
            for file in folder.iterdir():
                _spoil(file, draw)
    await asyncio.sleep(draw.uniform(0, 1.0))


@fault("an odd file in the data folder", weight=3)
async def odd_file(scene: Scene, draw: random.Random) -> None:
    """In one of its folders; it is taken away later, as what somebody has left there."""
    folder = scene.data_dir / draw.choice((".", "runs", "responses", "metrics", "logs", "accepted"))
    path = folder / draw.choice(("odd", "odd.json", "odd.yaml", ".odd.part", "od\nd"))
    try:
        with suppress(OSError):
            _remove(path)
            path.write_bytes(b"odd")
            _spoil(path, draw)
        await asyncio.sleep(draw.uniform(0, 1.0))
    finally:
        with suppress(OSError):
            _remove(path)


@fault("a file of the metrics is spoilt", weight=2)
async def metrics(scene: Scene, draw: random.Random) -> None:
    _spoil(scene.data_dir / "metrics" / draw.choice(("worker-0.json", "worker-1.json")), draw)
    await asyncio.sleep(draw.uniform(0, 1.0))


@fault("the server's note is spoilt", "server", weight=1)
async def note(scene: Scene, draw: random.Random) -> None:
    """The command line finds the server by it, so it has to be there again."""
    before = scene.note()
    _spoil(scene.data_dir / "serve.lock", draw)
    for _ in range(50):
        await asyncio.sleep(0.1)
        now = scene.note()
        if before is None or (now is not None and now.pid == before.pid):
            return
    scene.report("the server's note was not written again")


@fault("what others can rebuild is deleted", weight=2)
async def deleted_folders(scene: Scene, draw: random.Random) -> None:
    for name in draw.sample(("metrics", "logs", "responses", "control.lock"), 2):
        with suppress(OSError):
            _remove(scene.data_dir / name)


@fault("something else stands in the place of a folder", weight=2)
async def replaced_folder(scene: Scene, draw: random.Random) -> None:
    _spoil(scene.data_dir / draw.choice(("metrics", "logs", "responses", "control.lock")), draw)
    await asyncio.sleep(draw.uniform(0, 1.0))


@fault("the data folder is opened to all", weight=1)
async def opened(scene: Scene, draw: random.Random) -> None:
    with suppress(OSError):
        scene.data_dir.chmod(0o755)
    await asyncio.sleep(draw.uniform(0, 0.5))
    scene.data_dir.chmod(0o700)
