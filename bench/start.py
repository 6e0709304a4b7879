"""How long `understudy serve` takes until its first answer: wall seconds, and CPU seconds of all.

    .venv/bin/python -m bench.start [--starts 7]

Each start has an empty data folder and a teacher that is called directly, on loopback. A client
repeats a chat completion from the moment of the start until the first whole answer. Medians over
the starts; with the load average, because any start is slow on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil
import yaml

from demo.backtest.plan import DEFAULT_PRICE
from demo.drive.driver import loopback_teacher
from demo.tasks.tasks import TASKS
from demo.teacher.teacher import MODEL, start_teacher
from distill.students.server import free_port
from store.jsontext import JsonObject


async def one_start(teacher_url: str) -> dict[str, float]:
    """Starts the product once, and stops it."""
    task = next(iter(TASKS.values()))
    body = {"model": MODEL, "messages": task.messages("I forgot my password.")}
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as name:
        folder, port = Path(name), free_port()
        config: JsonObject = {
            "model_list": [loopback_teacher(MODEL, teacher_url, DEFAULT_PRICE)],
            "server": {"port": port},
            "data_dir": str(folder / "data"),
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli", "serve", "--config", str(folder / "config.yaml")),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
                while not await _answered(http, body):  # noqa: ASYNC110  (another process's event)
                    await asyncio.sleep(0.01)
            wall = time.perf_counter() - began
            ours = psutil.Process(process.pid)
            times = [p.cpu_times() for p in (ours, *ours.children(recursive=True))]
            return {"wall_s": wall, "cpu_s": sum(t.user + t.system for t in times)}
        finally:
            process.terminate()
            await process.wait()


async def _answered(http: aiohttp.ClientSession, body: JsonObject) -> bool:
    try:
        async with http.post("/v1/chat/completions", json=body) as response:
            await response.read()
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def measure(starts: int) -> JsonObject:
    """The medians over the starts."""
    load = os.getloadavg()[0]
    async with await start_teacher() as teacher:
        results = [await one_start(teacher.base_url) for _ in range(starts)]
    walls = sorted(f["wall_s"] for f in results)
    return {
        "starts": starts,
        "first_answer_wall_s": {
            "median": round(statistics.median(walls), 3),
            "least": round(walls[0], 3),
            "most": round(walls[-1], 3),
        },
        "cpu_s_until_then": round(statistics.median(f["cpu_s"] for f in results), 3),
        "load_before": round(load, 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=7)
    print(json.dumps(asyncio.run(measure(parser.parse_args().starts)), indent=1))
