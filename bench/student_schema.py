"""Whether clients ever get a student's answer that breaks the schema which they asked for.

    .venv/bin/python -m bench.student_schema [--json] [--requests 10000] [--concurrency 16]
                                             [--adapter FOLDER] [--steps N]

Requests with a strict JSON schema go through the running product until its student has answered the
wanted number, and each answer is checked by jsonschema. Where the student breaks the schema, the
teacher answers. The same requests go to the bare `mlx_lm.server`, which silently ignores
`response_format`.

Half of the inputs are like those that the student has learnt from, the others are not; see
bench/schema_inputs.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from jsonschema import Draft202012Validator
from rich.console import Console
from rich.table import Table

from bench.metering import cpu_of
from bench.schema_inputs import LIKE, UNLIKE, inputs
from bench.student_scene import PATH, TASK, live_student, request, train_adapter
from store.jsontext import JsonObject

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "order_id": {"type": ["string", "null"], "pattern": r"^[A-Z]{1,3}-\d{3,6}$"},
        "date": {"type": ["string", "null"], "pattern": r"^[A-Za-z0-9, -]{8,20}$"},
        "amount": {"type": ["string", "null"], "pattern": r"^\d+([.,]\d{2})?$"},
    },
    "required": ["order_id", "date", "amount"],
    "additionalProperties": False,
}
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "order", "strict": True, "schema": SCHEMA},
}
AT_MOST = 4  # requests for each student answer that is wanted
BARE = "bare"
_CHECK = Draft202012Validator(SCHEMA)


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, as a client sees it."""

    by: str  # student, teacher, fallback (the student was asked, the teacher answered), or bare
    reason: str | None  # the product's reason
    status: int
    violates: bool  # it breaks the schema


def violates(content: object) -> bool:
    """Whether an answer's text is anything else than JSON that the schema allows."""
    try:
        return not _CHECK.is_valid(json.loads(str(content)))
    except ValueError:
        return True


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"x-understudy-task": TASK.name}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, headers=headers, connector=connector) as http:
        yield http


async def _ask(http: aiohttp.ClientSession, body: JsonObject) -> Answered:
    async with http.post(PATH, json=body) as answer:
        raw = await answer.read()
        by = answer.headers.get("x-understudy-route", BARE)
        reason = answer.headers.get("x-understudy-reason")
    try:
        content = json.loads(raw)["choices"][0]["message"].get("content")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        content = None
    return Answered(by, reason, answer.status, violates(content))


async def _through(
    url: str, wanted: int, concurrency: int, sent: list[tuple[str, str]]
) -> list[tuple[str, Answered]]:
    """Asks the product for inputs until its student has answered often enough.

    `sent` is extended by the inputs, in the order of the answers.
    """
    found: list[tuple[str, Answered]] = []
    source = inputs(seed=1)
    served = 0

    async def client(http: aiohttp.ClientSession) -> None:
        nonlocal served
        while served < wanted and len(found) < AT_MOST * wanted:
            kind, text = next(source)
            answered = await _ask(http, request(text, RESPONSE_FORMAT))
            served += answered.by == "student"
            sent.append((kind, text))
            found.append((kind, answered))

    async with _client(url) as http:
        await asyncio.gather(*(client(http) for _ in range(concurrency)))
    return found


async def _bare(
    url: str, concurrency: int, sent: list[tuple[str, str]]
) -> list[tuple[str, Answered]]:
    """Asks the same of the student's own server."""
    found: list[tuple[str, Answered]] = []
    source = iter(sent)

    async def client(http: aiohttp.ClientSession) -> None:
        for kind, text in source:
            body = {**request(text, RESPONSE_FORMAT), "model": "default_model", "temperature": 0}
            found.append((kind, await _ask(http, body)))

    async with _client(url) as http:
        await asyncio.gather(*(client(http) for _ in range(concurrency)))
    return found


async def measure(
    requests: int, *, concurrency: int, adapter: Path | None = None, steps: int | None = None
) -> JsonObject:
    """The answers to clients, and those of the bare server. `requests`: answers of the student."""
    load_before = os.getloadavg()[0]
    sent: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as name:
        folder = Path(name)
        trained = await train_adapter(adapter or folder / "training", steps=steps)
        async with live_student(
            folder / "product", trained, response_format=RESPONSE_FORMAT
        ) as scene:
            workers = scene.workers()
            before, began = cpu_of(workers), time.perf_counter()
            through = await _through(scene.url, requests, concurrency, sent)
            took, used = time.perf_counter() - began, cpu_of(workers) - before
            bare = await _bare(scene.student_url, concurrency, sent)
    return {
        "method": {"wanted": requests, "concurrency": concurrency, "steps": steps},
        "machine": {"cores": os.cpu_count(), "load_before": round(load_before, 2)},
        "requests": len(through),
        "per_s": round(len(through) / took, 1),
        "proxy_cpu_us": round(used.total / len(through) * 1e6, 1),
        "not_2xx": sum(a.status != 200 for _, a in through),
        "student": _counts(through, "student"),
        "fallback": _counts(through, "fallback"),
        "teacher": _counts(through, "teacher"),
        "reasons": dict(Counter(a.reason for _, a in through if a.by != "student")),
        "bare": {**_counts(bare, BARE), "not_2xx": sum(a.status != 200 for _, a in bare)},
    }


def _counts(found: list[tuple[str, Answered]], by: str) -> JsonObject:
    """Answers, and violations among them, in all and by kind of input."""
    counts: JsonObject = {}
    for kind in (LIKE, UNLIKE):
        of_kind = [a for k, a in found if k == kind and a.by == by]
        counts[kind] = {"answers": len(of_kind), "violations": sum(a.violates for a in of_kind)}
    total = {
        name: sum(counts[kind][name] for kind in (LIKE, UNLIKE))
        for name in ("answers", "violations")
    }
    rate = round(total["violations"] / total["answers"], 5) if total["answers"] else None
    return {**total, "rate": rate, **counts}


def table(result: JsonObject) -> Table:
    """The result as a table."""
    shown = Table(title="Answers, and those that break the schema", title_justify="left")
    for column in ("answered by", "answers", "violations", "rate", LIKE, UNLIKE):
        shown.add_column(column, justify="right" if column != "answered by" else "left")
    rows = {
        "the student, through the proxy": "student",
        "the teacher, for the student": "fallback",
        "the teacher alone": "teacher",
        "the bare server": "bare",
    }
    for label, name in rows.items():
        row = result[name]
        kinds = (f"{row[k]['violations']} of {row[k]['answers']}" for k in (LIKE, UNLIKE))
        rate = "" if row["rate"] is None else f"{row['rate']:.2%}"
        shown.add_row(label, str(row["answers"]), str(row["violations"]), rate, *kinds)
    return shown


def main() -> None:
    """Prints the table, or the same as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--json", action="store_true", help="JSON instead of a table")
    add("--requests", type=int, default=10_000, help="answers of the student to wait for")
    add("--concurrency", type=int, default=16)
    add("--adapter", type=Path, help="folder of a training; made when it is not there")
    add("--steps", type=int, help="of the training; fewer make a worse student, sooner")
    arguments = parser.parse_args()
    result = asyncio.run(
        measure(
            arguments.requests,
            concurrency=arguments.concurrency,
            adapter=arguments.adapter,
            steps=arguments.steps,
        )
    )
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table(result))
    console.print(f"{result['requests']} requests, {result['not_2xx']} answers not 2xx")
    console.print(f"by the teacher because: {result['reasons']}")
    machine = result["machine"]
    console.print(f"{machine['cores']} cores, load average before: {machine['load_before']}")


if __name__ == "__main__":
    main()
