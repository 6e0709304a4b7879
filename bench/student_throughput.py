"""A student's throughput behind the proxy, compared with its bare `mlx_lm.server`.

    .venv/bin/python -m bench.student_throughput [--json] [--seconds 10] [--rounds 3]
                                                 [--concurrency 1,4,16] [--adapter FOLDER]

The same server process and the same requests, in turns: through the product, and directly in two
ways: *alike*, as the proxy asks it, with the log-probabilities for the confidence, and *plain*,
without them. The load comes from wrk. `--adapter` keeps the trained student for later runs.
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
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from bench.load import HEADERS, MissingTool, find_wrk, load
from bench.metering import cpu_of
from bench.student_scene import MAX_TOKENS, TASK, Scene, live_student, request, texts, train_adapter
from store.chat.student_wire import student_body
from store.jsontext import JsonObject

BODIES = 2000
IDLE_S = 5.0  # at most
PAUSE_S = 1.0  # for a server to end requests of closed connections
PROXIED, ALIKE, PLAIN = WAYS = "through the proxy", "bare, alike", "bare, plain"

Body = Callable[[str], bytes]


def _alike(text: str) -> bytes:
    return student_body(TASK.messages(text), max_tokens=MAX_TOKENS)


def _plain(text: str) -> bytes:
    body = {**request(text), "model": "default_model", "temperature": 0.0}
    return orjson.dumps(body)


def _proxied(text: str) -> bytes:
    return orjson.dumps(request(text))


def one_cell(
    scene: Scene, way: str, concurrency: int, seconds: int, inputs: Sequence[str]
) -> JsonObject:
    """One cell: some clients, for some seconds, in one way."""
    bodies: dict[str, Body] = {PROXIED: _proxied, ALIKE: _alike, PLAIN: _plain}
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as name:
        ledger = Path(name) / "ledger"
        workers, others = scene.workers(), scene.others()
        before, others_before = cpu_of(workers), cpu_of(others)
        result = load(
            scene.url if way == PROXIED else scene.student_url,
            connections=concurrency,
            seconds=seconds,
            bodies=[bodies[way](text) for text in inputs],
            headers={**HEADERS, "x-understudy-task": TASK.name},
            ledger=ledger,
        )
        used, others_used = cpu_of(workers) - before, cpu_of(others) - others_before
        routes = Counter(line.split(" ")[2] for line in ledger.read_text("ascii").splitlines())
    time.sleep(PAUSE_S)
    return {
        "way": way,
        "concurrency": concurrency,
        "answers": result.requests,
        "not_2xx": result.not_2xx,
        "broken": result.broken,
        "by_teacher": routes["teacher"] + routes["fallback"],
        "per_s": result.requests / result.seconds,
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "proxy_cpu_us": used.total / max(result.requests, 1) * 1e6,
        "others_cpu_us": others_used.total / max(result.requests, 1) * 1e6,
    }


async def measure(
    concurrencies: Sequence[int],
    *,
    seconds: int,
    rounds: int,
    adapter: Path | None = None,
    steps: int | None = None,
) -> JsonObject:
    """The cells' medians, and the ratios of throughput. `adapter`: a folder for the training."""
    load_before = os.getloadavg()[0]
    inputs = texts(BODIES, seed=1)
    cells: list[JsonObject] = []
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as name:
        folder = Path(name)
        trained = await train_adapter(adapter or folder / "training", steps=steps)
        async with live_student(folder / "product", trained) as scene:
            idle = await _idle(scene, min(seconds, IDLE_S))
            for number in range(rounds):
                for concurrency in concurrencies:
                    # the same requests in each way, other ones in each cell of a way
                    turn = (number * len(concurrencies) + concurrency) * 97 % BODIES
                    rotated = [*inputs[turn:], *inputs[:turn]]
                    for way in WAYS:
                        cells.append(
                            await asyncio.to_thread(
                                one_cell, scene, way, concurrency, seconds, rotated
                            )
                        )
    return {
        "method": {"seconds": seconds, "rounds": rounds, "steps": steps},
        "proxy_idle_cpu_us_a_second": idle,
        "machine": {"cores": os.cpu_count(), "load_before": round(load_before, 2)},
        "concurrency": [_summary(cells, concurrency) for concurrency in concurrencies],
    }


async def _idle(scene: Scene, seconds: float) -> float:
    """CPU time of the idle proxy: it counts where answers are few."""
    before = cpu_of(scene.workers())
    await asyncio.sleep(seconds)
    return round((cpu_of(scene.workers()) - before).total / seconds * 1e6)


def _summary(cells: Sequence[JsonObject], concurrency: int) -> JsonObject:
    summary: JsonObject = {"concurrency": concurrency}
    for way in WAYS:
        of_way = [c for c in cells if c["concurrency"] == concurrency and c["way"] == way]
        summary[way] = {
            **{
                name: round(statistics.median(cell[name] for cell in of_way), 2)
                for name in ("per_s", "p50_ms", "p99_ms")
            },
            **{
                name: sum(cell[name] for cell in of_way)
                for name in ("answers", "not_2xx", "broken", "by_teacher")
            },
        }
        if way == PROXIED:
            for name in ("proxy_cpu_us", "others_cpu_us"):
                summary[name] = round(statistics.median(cell[name] for cell in of_way), 1)
    for name, way in (("ratio", ALIKE), ("ratio_plain", PLAIN)):
        bare = summary[way]["per_s"]
        summary[name] = round(summary[PROXIED]["per_s"] / bare, 3) if bare else None
    return summary


def table(result: JsonObject) -> Table:
    """The result as a table."""
    shown = Table(title="Student answers/s, medians; p50 in ms", title_justify="left")
    columns = ("clients", *(f"{way}{what}" for way in WAYS for what in ("", ", p50")))
    more = (
        "ratio to alike",
        "to plain",
        "proxy CPU µs",
        "control plane",
        "by the teacher",
        "not 2xx, broken",
    )
    for column in (*columns, *more):
        shown.add_column(column, justify="right")
    for row in result["concurrency"]:
        ways = [row[way] for way in WAYS]
        values = [
            row["concurrency"],
            *(value for way in ways for value in (way["per_s"], way["p50_ms"])),
            *(row["ratio"], row["ratio_plain"], row["proxy_cpu_us"], row["others_cpu_us"]),
            row[PROXIED]["by_teacher"],
            sum(way["not_2xx"] + way["broken"] for way in ways),
        ]
        shown.add_row(*map(str, values))
    return shown


def main() -> None:
    """Prints the table, or the same as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--json", action="store_true", help="JSON instead of a table")
    add("--seconds", type=int, default=10, help="of each cell")
    add("--rounds", type=int, default=3)
    add("--concurrency", type=lambda s: [int(n) for n in s.split(",")], default=[1, 4, 16])
    add("--adapter", type=Path, help="folder of a training; made when it is not there")
    add("--steps", type=int, help="of the training; fewer make a worse student, sooner")
    arguments = parser.parse_args()
    try:
        find_wrk()
    except MissingTool as error:
        sys.exit(str(error))
    result = asyncio.run(
        measure(
            arguments.concurrency,
            seconds=arguments.seconds,
            rounds=arguments.rounds,
            adapter=arguments.adapter,
            steps=arguments.steps,
        )
    )
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    console = Console(width=None if Console().is_terminal else 150)
    console.print(table(result))
    machine = result["machine"]
    console.print(
        f"an idle proxy uses {result['proxy_idle_cpu_us_a_second']:.0f} µs of CPU a second; "
        f"{machine['cores']} cores, load average before: {machine['load_before']}"
    )


if __name__ == "__main__":
    main()
