"""A full disk, files that may not grow, and a lack of descriptors.

The disk is filled where the campaign may mount a small one (tests.campaign.disk). A limit of a
process's file size works everywhere: a write of more fails, as on a disk that is full.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.campaign.faults.processes import CONTROL_PLANE, WORKER
from tests.campaign.faults.registry import fault
from tests.campaign.scene import LIMITS, Scene, limit

_WRITTEN_AGAIN_S = 60.0
_CONTROL_PLANE_SPARE = (0, 4)  # descriptors above those that are open
_MAX_DESCRIPTOR = 4096


@fault("the disk is full", "disk", "workers", "server", "control plane", weight=3)
async def fill_disk(scene: Scene, draw: random.Random) -> None:
    filler = scene.disk / "filler"
    try:
        if scene.small_disk:
            await asyncio.to_thread(_fill, filler)
            await asyncio.sleep(draw.uniform(0.3, 2.0))
        else:
            scene.notes["full disks that were limits of processes"] += 1
            await _limited(scene, draw, [WORKER, CONTROL_PLANE])
    finally:
        filler.unlink(missing_ok=True)
    await _written_again(scene)


def _fill(filler: Path) -> None:
    """Writes until nothing is left; then bytes, as whole blocks may not fit any more."""
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass


@fault("a worker's files may not grow", "disk", "workers", "server", weight=3)
async def limit_worker(scene: Scene, draw: random.Random) -> None:
    await _limited(scene, draw, [WORKER])
    await _written_again(scene)


@fault("the control plane's files may not grow", "disk", "control plane", "server", weight=2)
async def limit_control_plane(scene: Scene, draw: random.Random) -> None:
    await _limited(scene, draw, [CONTROL_PLANE])


async def _limited(scene: Scene, draw: random.Random, modules: list[str]) -> None:
    size = draw.choice((0, 1 << 12, 1 << 16))
    before: dict[psutil.Process, int] = {}
    for process in [one for module in modules for one in scene.processes(module)]:
        with suppress(psutil.NoSuchProcess):
            before[process] = limit(process, LIMITS["file size"], size)
    try:
        await asyncio.sleep(draw.uniform(0.3, 2.0))
    finally:
        for process, soft in before.items():
            with suppress(psutil.NoSuchProcess):
                limit(process, LIMITS["file size"], soft)


async def _written_again(scene: Scene) -> None:
    """Waits until no worker keeps lines in memory: nobody may end one before."""
    deadline = time.monotonic() + _WRITTEN_AGAIN_S
    while time.monotonic() < deadline:
        health = await scene.health()
        if health is not None:
            workers = health["workers"]
            if any(worker["lost"] for worker in workers):
                scene.report("lines of the journal were lost while the disk was full")
            if all(w["alive"] and w["journal_ok"] and not w["backlog"] for w in workers):
                await asyncio.sleep(1.1)  # what the workers say of each other is a second old
                return
        await asyncio.sleep(0.1)
    scene.report(f"the journal was not written again within {_WRITTEN_AGAIN_S} s")


@fault("the control plane has no descriptors left", "control plane", weight=2)
async def starve_control_plane(scene: Scene, draw: random.Random) -> None:
    for process in scene.processes(CONTROL_PLANE):
        with suppress(psutil.Error, OSError):
            open_now = os.listdir(f"/proc/{process.pid}/fd")  # none: it has ended
            highest = max(map(int, open_now), default=_MAX_DESCRIPTOR)
            spare = draw.choice(_CONTROL_PLANE_SPARE)
            before = limit(
                process, LIMITS["descriptors"], min(highest + 1 + spare, _MAX_DESCRIPTOR)
            )
            try:
                await asyncio.sleep(draw.uniform(0.3, 2.0))
            finally:
                limit(process, LIMITS["descriptors"], before)
