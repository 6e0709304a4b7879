"""The effects of the settings of shadow and audits. The table comes last."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import msgspec

from store.records import Reason
from tests.helpers.effects import TASK, Effect, Raw
from tests.helpers.live_scene import Scene

# ---- live evidence -----------------------------------------------------------------------------


async def compared_in_shadow(raw: Raw) -> int:
    """How many of 40 requests a student in shadow answers too."""
    async with Scene(Path(raw["data_dir"]), **raw["task_defaults"]) as scene:
        student = scene.promote(TASK, step="shadow")
        requests = [
            msgspec.structs.replace(
                scene.request(f"text {number}", TASK, reason=Reason.SHADOW),
                trace_id=str(UUID(int=number)),
            )
            for number in range(40)
        ]
        await scene.settle(*requests)
        return len(scene.comparisons(student))


# ---- the table ---------------------------------------------------------------------------------

LIVE: dict[str, Effect] = {
    "task_defaults.rollout.shadow_share": Effect(
        compared_in_shadow, (0.2, 13), (1.0, 40), {"task_defaults.rollout.min_comparisons": 1000}
    ),
}
