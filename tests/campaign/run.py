"""An episode from its start to its checks, and a campaign of many.

An episode has a seed, a server of its own and about a hundred faults. Its seed alone repeats it.
"""

from __future__ import annotations

import asyncio
import shutil
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign import invariants
from tests.campaign.disk import small_disk
from tests.campaign.faults import Planned, plan
from tests.campaign.scene import Scene, marked

FAULTS_PER_EPISODE = 100
LANES = 4  # faults at a time
CHECK_EVERY = 50  # faults
PER_SECOND = 30.0  # requests of clients
_GRACE_S = 45.0  # of an episode, for its last check and its stop


@dataclass(slots=True)
class Outcome:
    """What an episode came to."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    numbers: dict[str, object] = field(default_factory=dict)
    seconds: float = 0.0


async def episode(
    seed: int,
    count: int,
    *,
    deadline: float,
    folder: Path,
    per_second: float = PER_SECOND,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Runs `count` faults and checks what has to hold. `deadline`: by `time.monotonic`."""
    outcome, began = Outcome(seed), time.monotonic()
    with small_disk(folder / "disk"):
        async with Scene(folder, str(seed), per_second=per_second) as scene:
            outcome.wrong, outcome.notes = scene.wrong, scene.notes
            outcome.verdicts = scene.load.verdicts
            if await invariants.healthy(scene) and await invariants.served(scene):
                queue = plan(str(seed), count)
                while queue and time.monotonic() < deadline - _GRACE_S:
                    batch, queue = queue[:CHECK_EVERY], queue[CHECK_EVERY:]
                    await _run(scene, batch, outcome, deadline, say)
                    if not await invariants.healthy(scene):
                        break
                await invariants.served(scene)
            await scene.load.stop()
            await scene.teacher.stop()  # no connection of the load is left open
            await scene.teacher.start()
            await asyncio.sleep(1)
            await invariants.healthy(scene)
            await invariants.collected(scene)
            outcome.numbers |= invariants.check_processes(scene)
            await scene.stop()
            outcome.numbers |= invariants.check_store(scene)
            invariants.check_files(scene)
            left = [process.pid for process in marked(scene.mark)]
            if left:
                scene.report(f"processes outlived the server: {left}")
        if scene.wrong:  # the small disk goes with the episode
            await asyncio.to_thread(keep, folder)
    outcome.seconds = time.monotonic() - began
    return outcome


def keep(folder: Path) -> None:
    """Copies what is on the episode's disk to where it stays."""
    shutil.copytree(
        folder / "disk" / "data",
        folder / "kept",
        symlinks=True,
        ignore=lambda place, names: [
            name
            for name in names
            if not stat.S_ISREG(Path(place, name).lstat().st_mode)
            and not Path(place, name).is_dir()
        ],
    )


async def _run(
    scene: Scene,
    planned: list[Planned],
    outcome: Outcome,
    deadline: float,
    say: Callable[[str], None],
) -> None:
    """Runs these faults, some at a time, but none together with one that touches the same part."""
    waiting = list(planned)
    touched: set[str] = set()
    free = asyncio.Condition()

    async def lane() -> None:
        while waiting and time.monotonic() < deadline - _GRACE_S:
            async with free:
                found = next((one for one in waiting if not one.fault.touches & touched), None)
                if found is None:
                    await free.wait()
                    continue
                waiting.remove(found)
                touched.update(found.fault.touches)
            began = time.monotonic()
            try:
                await found.fault.act(scene, found.draw)
                outcome.faults[found.fault.name] += 1
            except Exception as error:
                scene.report(f"fault {found.number} ({found.fault.name}) itself failed: {error!r}")
            line = (
                f"{scene.since(began):7.2f} to {scene.since():7.2f} s: "
                f"{found.number} {found.fault.name}"
            )
            scene.say(line)
            say(line)
            async with free:
                touched.difference_update(found.fault.touches)
                free.notify_all()

    await asyncio.gather(*(lane() for _ in range(LANES)))


async def campaign(
    seed: int,
    faults: int,
    *,
    minutes: float,
    say: Callable[[str], None],
    detail: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """Episodes with the seeds from `seed` on, until there were so many faults, or time is up."""
    deadline = time.monotonic() + minutes * 60
    outcomes: list[Outcome] = []
    left = faults
    while left > 0 and time.monotonic() < deadline - _GRACE_S:
        count = min(left, FAULTS_PER_EPISODE)
        folder = Path(tempfile.mkdtemp(prefix=f"campaign-{seed}-"))
        outcome = await episode(seed, count, deadline=deadline, folder=folder, say=detail)
        outcomes.append(outcome)
        done = outcome.faults.total()
        say(
            f"seed {seed}: {done} faults, {outcome.verdicts.total()} requests "
            f"{dict(outcome.verdicts)}, {outcome.numbers}, {outcome.seconds:.0f} s, "
            f"{len(outcome.wrong)} wrong"
        )
        if outcome.wrong:
            for line in outcome.wrong[:20]:
                say(f"  {line}")
            say(f"  its output and its data: {folder}")
            say(f"  again: python -m tests.campaign --seed {seed} --faults {count}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        left -= count
        seed += 1
    return outcomes
