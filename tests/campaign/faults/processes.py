"""Processes that are killed, stopped for a while, or told to end."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import suppress

import psutil

from tests.campaign.faults.registry import fault
from tests.campaign.scene import Scene

WORKER, CONTROL_PLANE, STUDENT = "proxy.worker", "distill.control", "distill.train.mlx_launch"
KILLED_S = 0.3  # what is lost with a process is noticed within it
HANGS_S = 60.0  # a control plane that hangs is replaced well before


def _one(scene: Scene, draw: random.Random, module: str) -> psutil.Process | None:
    found = scene.processes(module)
    return draw.choice(sorted(found, key=lambda one: one.pid)) if found else None


async def _signal(scene: Scene, draw: random.Random, module: str, number: signal.Signals) -> None:
    process = _one(scene, draw, module)
    if process is not None:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


async def _pause(scene: Scene, draw: random.Random, module: str, longest_s: float) -> None:
    process = _one(scene, draw, module)
    if process is None:
        return
    with suppress(psutil.NoSuchProcess):
        process.suspend()
        try:
            await asyncio.sleep(draw.uniform(0.1, longest_s))
        finally:
            process.resume()


@fault("a worker is killed", "workers", weight=4)
async def kill_worker(scene: Scene, draw: random.Random) -> None:
    with scene.lasting("killed"):
        await _signal(scene, draw, WORKER, signal.SIGKILL)
        await asyncio.sleep(KILLED_S)


@fault("a worker is stopped and goes on", "workers", weight=4)
async def pause_worker(scene: Scene, draw: random.Random) -> None:
    await _pause(scene, draw, WORKER, 2.5)


@fault("a worker is told to end", "workers", weight=3)
async def end_worker(scene: Scene, draw: random.Random) -> None:
    await _signal(scene, draw, WORKER, signal.SIGTERM)


@fault("the control plane is killed", "control plane", weight=3)
async def kill_control_plane(scene: Scene, draw: random.Random) -> None:
    await _signal(scene, draw, CONTROL_PLANE, signal.SIGKILL)


@fault("the control plane is stopped and goes on", "control plane", weight=3)
async def pause_control_plane(scene: Scene, draw: random.Random) -> None:
    await _pause(scene, draw, CONTROL_PLANE, 4.0)


@fault("the control plane is told to end", "control plane", weight=1)
async def end_control_plane(scene: Scene, draw: random.Random) -> None:
    await _signal(scene, draw, CONTROL_PLANE, signal.SIGTERM)


@fault("the control plane hangs for good", "control plane", weight=0.2)
async def hang_control_plane(scene: Scene, draw: random.Random) -> None:
    process = _one(scene, draw, CONTROL_PLANE)
    if process is None:
        return
    with suppress(psutil.NoSuchProcess):
        process.suspend()
        await asyncio.to_thread(psutil.wait_procs, [process], HANGS_S)
        if process.is_running() and process.status() == psutil.STATUS_STOPPED:
            scene.report(f"a control plane that hangs was not replaced within {HANGS_S} s")
            process.resume()


@fault("a student is killed", "students", weight=3)
async def kill_student(scene: Scene, draw: random.Random) -> None:
    await _signal(scene, draw, STUDENT, signal.SIGKILL)


@fault("a student is stopped and goes on", "students", weight=3)
async def pause_student(scene: Scene, draw: random.Random) -> None:
    await _pause(scene, draw, STUDENT, 4.0)


@fault("a student is told to end", "students", weight=1)
async def end_student(scene: Scene, draw: random.Random) -> None:
    await _signal(scene, draw, STUDENT, signal.SIGTERM)
