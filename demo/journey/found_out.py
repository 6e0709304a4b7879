"""The end of the demo: a student is spoiled on disk, and the product has to find it out.

The product is stopped, the weights are shuffled, the product is started again in the same folder:
it serves what it finds, as it would after any restart. Clients send traffic until it is demoted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from demo.drive.driver import Product, Status
from demo.drive.ramp import climb, is_live
from demo.journey.sabotage import shuffle_weights
from demo.tasks.tasks import DemoTask
from store.jsontext import JsonObject

SERVES_AGAIN_S = 60.0


async def spoil(folder_of_runs: Any, status: Status) -> int:
    """Shuffles the weights of the task's student. Returns how many numbers they are."""
    run = status["last_run"]
    adapter = folder_of_runs / run["run_id"] / run["detail"]["trained"]["adapter"]
    return await asyncio.to_thread(shuffle_weights, adapter)


async def found_out(
    product: Product,
    task: DemoTask,
    *,
    timeout_s: float,
    watch: Callable[[Status], None] = lambda status: None,
) -> JsonObject:
    """Sends traffic to a spoiled student until it is demoted, and says what clients saw of it."""
    await product.wait(task.name, is_live, timeout_s=SERVES_AGAIN_S)
    async with product.client() as client:
        seen = await climb(
            product,
            client,
            task,
            until=lambda status: status["route"]["reason"] == "demoted",
            seed="spoiled",
            timeout_s=timeout_s,
            watch=watch,
        )
        status = await product.status(task.name)
    assert status is not None
    return {"task": task.name, **seen.as_dict(), "demotion": status["demotion"]}
