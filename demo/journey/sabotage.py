"""The end of the demo: a student is damaged on disk, and the product has to detect it.

The product is stopped, the weights are shuffled, and the product is started again in the same
folder: it serves the damaged student, as after any restart. Clients send traffic until the student
is demoted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from demo.drive.driver import Product, Status
from demo.drive.ramp import climb, is_live
from demo.tasks.tasks import DemoTask
from store.jsontext import JsonObject

SERVES_AGAIN_S = 60.0
WEIGHTS = "adapters.safetensors"


async def damage(runs_dir: Path, status: Status) -> int:
    """Shuffles the weights of the task's student. Returns how many there are."""
    run = status["last_run"]
    adapter = runs_dir / run["run_id"] / run["detail"]["trained"]["adapter"]
    return await asyncio.to_thread(shuffle_weights, adapter)


async def until_demoted(
    product: Product,
    task: DemoTask,
    *,
    timeout_s: float,
    watch: Callable[[Status], None] = lambda status: None,
) -> JsonObject:
    """Sends traffic to a damaged student until it is demoted; returns what clients saw."""
    await product.wait(task.name, is_live, timeout_s=SERVES_AGAIN_S)
    async with product.client() as client:
        counts = await climb(
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
    return {"task": task.name, **counts.as_dict(), "demotion": status["demotion"]}


def shuffle_weights(adapter: Path, seed: int = 0) -> int:
    """Shuffles the numbers of an adapter among each other. Returns how many there are.

    The file stays valid, with the same size and shapes, so that it loads without an error. Format:
    8 bytes with the header's length (little endian), a JSON header, then the tensors;
    https://github.com/huggingface/safetensors#format
    """
    file = adapter / WEIGHTS
    raw = file.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    kinds = {t["dtype"] for n, t in json.loads(raw[8:start]).items() if n != "__metadata__"}
    if kinds != {"F32"}:
        raise ValueError(f"{WEIGHTS} holds {', '.join(sorted(kinds))}, not only F32")
    numbers = np.frombuffer(raw[start:], dtype="<f4").copy()
    np.random.default_rng(seed).shuffle(numbers)
    file.write_bytes(raw[:start] + numbers.tobytes())
    return len(numbers)
