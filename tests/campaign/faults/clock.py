"""A wall clock that somebody sets, forward and back."""

from __future__ import annotations

import asyncio
import random

from tests.campaign.faults.registry import fault
from tests.campaign.scene import Scene

_SHIFTS_S = (-86_400.0, -3_600.0, -61.0, -1.0, 1.0, 61.0, 3_600.0, 86_400.0)


@fault("the clock is set", "clock", weight=5)
async def set_clock(scene: Scene, draw: random.Random) -> None:
    """And later set right, at once or in two steps."""
    scene.shift_clock(draw.choice(_SHIFTS_S))
    await asyncio.sleep(draw.uniform(0.2, 3.0))
    if draw.random() < 0.3:
        scene.shift_clock(draw.choice(_SHIFTS_S))
        await asyncio.sleep(draw.uniform(0.2, 1.0))
    scene.shift_clock(0.0)
