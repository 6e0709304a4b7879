"""A hostile teacher, a teacher that is not there, and hostile students."""

from __future__ import annotations

import asyncio
import random

from tests.campaign.faults.registry import fault
from tests.campaign.scene import Scene
from tests.campaign.teacher import WAYS

STUDENT_WAYS = (
    "slow",
    "error",
    "no JSON",
    "other JSON",
    "no text",
    "cut off",
    "no log-probabilities",
    "half an answer",
    "dies",
)


@fault("the teacher is hostile", "teacher", weight=10)
async def hostile_teacher(scene: Scene, draw: random.Random) -> None:
    scene.teacher.hostile = tuple(draw.sample(sorted(WAYS), draw.randint(1, 4)))
    await asyncio.sleep(draw.uniform(0.5, 2.0))
    scene.teacher.hostile = ()


@fault("the teacher is not there", "teacher", weight=4)
async def no_teacher(scene: Scene, draw: random.Random) -> None:
    with scene.lasting("teacher"):
        await scene.teacher.stop()
        await asyncio.sleep(draw.uniform(0.1, 1.5))
        await scene.teacher.start()


@fault("the students are hostile", "students", weight=6)
async def hostile_students(scene: Scene, draw: random.Random) -> None:
    scene.student_way(draw.choice(STUDENT_WAYS))
    await asyncio.sleep(draw.uniform(0.5, 2.0))
    scene.student_way("")
