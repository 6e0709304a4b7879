"""The server as a whole: stopped, killed, started again, and given another config."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import suppress

import psutil

from tests.campaign.faults.registry import fault
from tests.campaign.scene import Scene

_BROKEN_CONFIGS = (
    "",
    "model_list: [",
    "no_such_setting: 1",
    "model_list: []",
    "server: {port: -1}",
    "\x00\x01",
)
_RELOAD_S = 45.0


@fault("the server is restarted", "server", "workers", "students", "control plane", weight=1.5)
async def restart(scene: Scene, draw: random.Random) -> None:
    scene.begin("down")
    await scene.stop(draw.choice((signal.SIGTERM, signal.SIGINT)))
    await scene.start()


@fault("serve is killed", "server", "workers", "students", "control plane", weight=1)
async def kill_serve(scene: Scene, draw: random.Random) -> None:
    """Its children end by themselves; what starts it again does not wait for them."""
    scene.begin("down")
    with scene.lasting("killed"):
        if scene.process is not None:
            with suppress(psutil.NoSuchProcess):
                scene.process.kill()
        await asyncio.sleep(draw.choice((0.0, 1.0)))
        await scene.start()
    scene.reap()


@fault("all processes are killed", "server", "workers", "students", "control plane", weight=1)
async def kill_all(scene: Scene, draw: random.Random) -> None:
    scene.begin("down")
    with scene.lasting("killed"):
        for process in scene.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        await scene.start()
    scene.reap()


@fault("serve is stopped and goes on", "server", weight=2)
async def pause_serve(scene: Scene, draw: random.Random) -> None:
    if scene.process is None:
        return
    with suppress(psutil.NoSuchProcess):
        scene.process.suspend()
        try:
            await asyncio.sleep(draw.uniform(0.1, 2.0))
        finally:
            scene.process.resume()


@fault("the config is read again", "server", weight=3)
async def reload(scene: Scene, draw: random.Random) -> None:
    """Another log level replaces the workers and the control plane."""
    scene.log_level = draw.choice(("error", "warning", "info"))
    scene.write_config()
    await _hang_up(scene)


@fault("a broken config is read", "server", weight=2)
async def broken_reload(scene: Scene, draw: random.Random) -> None:
    scene.write_config(draw.choice(_BROKEN_CONFIGS))
    try:
        await _hang_up(scene)
    finally:
        scene.write_config()


async def _hang_up(scene: Scene) -> None:
    """Has the config read again, and waits until that has an outcome."""
    before = scene.note()
    if before is None or scene.process is None:
        return
    with suppress(psutil.NoSuchProcess):
        scene.process.send_signal(signal.SIGHUP)
    try:
        async with asyncio.timeout(_RELOAD_S):
            while True:
                note = scene.note()
                if note is None or note.reloaded > before.reloaded:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        scene.report(f"a reload had no outcome within {_RELOAD_S} s")
