"""What has to hold once the faults are over: no hand was needed, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import psutil

from store.files.atomic import ASIDE
from tests.campaign import wire
from tests.campaign.faults.processes import CONTROL_PLANE, STUDENT, WORKER
from tests.campaign.scene import WORKERS, Scene
from tests.campaign.students import TAUGHT

HEALTHY_WITHIN_S = 75.0  # a control plane that hangs is noticed after 20 s, and delays double
SERVED_WITHIN_S = 75.0  # a student that ended often waits that long for its next start, at most
COLLECTED_WITHIN_S = 30.0
SHOWN = 5  # of each kind of finding

# what may lie in the data folder (docs/operations.md), by the beginning of its name
KNOWN = (
    "accepted",
    "control.lock",
    "draws.key",
    "journal",
    "logs",
    "metrics",
    "limits",
    "responses",
    "routes.json",
    "runs",
    "serve.lock",
    "understudy.duckdb",
)
# of an idle process, in bytes of memory and in descriptors
MOST = {WORKER: (150 << 20, 64), CONTROL_PLANE: (450 << 20, 48), STUDENT: (100 << 20, 32)}


async def healthy(scene: Scene, within_s: float = HEALTHY_WITHIN_S) -> bool:
    """Waits until /health says ok and the proxies have the last routes."""
    deadline = time.monotonic() + within_s
    health = status = None
    while time.monotonic() < deadline:
        health = await scene.health()
        if health is not None and health["status"] == "ok":
            status = await scene.status()
            if status is not None and status["proxies"] == {"workers": WORKERS, "current": WORKERS}:
                return True
        await asyncio.sleep(0.2)
    proxies = status and status["proxies"]
    scene.report(f"not healthy {within_s} s after the last fault: {health}, proxies {proxies}")
    return False


async def served(scene: Scene, within_s: float = SERVED_WITHIN_S) -> bool:
    """Waits until the students answer again; one that was demoted is promoted by command."""
    deadline = time.monotonic() + within_s
    waiting = list(TAUGHT)
    while waiting and time.monotonic() < deadline:
        await promote_again(scene)
        for task in list(waiting):
            verdict = await scene.load.ask(task, stream=False)
            if verdict.kind == "student":
                waiting.remove(task)
        await asyncio.sleep(0.3)
    if waiting:
        status = await scene.status()
        students = status and status.get("students")
        scene.report(f"no student answers for {waiting} after {within_s} s; students: {students}")
    return not waiting


async def promote_again(scene: Scene) -> None:
    """Promotes students that the detectors have demoted for their bad answers, as they should."""
    for task in TAUGHT:
        status = await scene.task_status(task)
        if status is None or status["route"]["reason"] != "demoted":
            continue
        if await scene.command(task, "promote", force=True, reason="the faults are over") == 200:
            scene.notes["students demoted for bad answers, and promoted again"] += 1


async def collected(scene: Scene) -> None:
    """Waits until the journal is empty."""
    deadline = time.monotonic() + COLLECTED_WITHIN_S
    left: list[str] = []
    while time.monotonic() < deadline:
        left = [
            path.name
            for path in _regular(scene.data_dir / "journal")
            if path.suffix in (".jsonl", ".open") and path.stat().st_size
        ]
        if not left:
            return
        await asyncio.sleep(0.1)
    scene.report(f"the journal is not collected after {COLLECTED_WITHIN_S} s: {left[:SHOWN]}")


def _regular(folder: Path) -> Iterator[Path]:
    """The regular files of a folder."""
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path


def check_processes(scene: Scene) -> dict[str, list[int]]:
    """Each process is there once, and holds no more than an idle one needs; megabytes and files."""
    found: dict[str, list[int]] = {}
    for module, (memory, descriptors) in MOST.items():
        processes = scene.processes(module)
        expected = WORKERS if module == WORKER else len(TAUGHT) if module == STUDENT else 1
        # a student may be demoted once more, for answers that were collected late
        fewer = module == STUDENT and len(processes) < expected
        if len(processes) != expected and not fewer:
            scene.report(f"{len(processes)} processes of {module}, not {expected}")
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                rss, open_now = process.memory_info().rss, process.num_fds()
                found.setdefault(module, []).extend((rss >> 20, open_now))
                if rss > memory or open_now > descriptors:
                    scene.report(f"{module} has {rss >> 20} MB and {open_now} descriptors")
    return found


def check_files(scene: Scene) -> None:
    """Nothing of the product lies outside of its data folder, and nobody else can read it."""
    for place in (scene.folder / "home", scene.disk / "tmp"):
        for path in place.rglob("*"):
            scene.report(f"a file outside of the data folder: {path.relative_to(scene.folder)}")
    for name in sorted(os.listdir(scene.data_dir)):
        if not name.startswith(KNOWN):
            scene.report(f"an unknown file in the data folder: {name}")
    for path in scene.data_dir.rglob("*"):
        with suppress(OSError):
            mode = path.lstat().st_mode
            # what a fault has put there is not of the product
            ours = not path.is_relative_to(scene.data_dir / "journal") and ASIDE not in str(path)
            if ours and stat.S_ISREG(mode) and mode & 0o077:
                scene.report(f"others can read {path.relative_to(scene.data_dir)}")


def check_store(scene: Scene) -> dict[str, int]:
    """Every answered request is in the store once, as its client saw it. The server has stopped."""
    with duckdb.connect(str(scene.data_dir / "understudy.duckdb"), read_only=True) as db:
        rows = db.execute(
            "SELECT trace_id::VARCHAR, served_by, status_code, input_messages, content FROM traces"
        ).fetchall()
        told = Counter(
            row[0] for row in db.execute("SELECT feedback_id::VARCHAR FROM feedback").fetchall()
        )
    _report(
        scene, "pieces of feedback are missing", [i for i in scene.load.feedback if not told[i]]
    )
    _report(scene, "pieces of feedback are twice", [i for i, n in told.items() if n > 1])
    stored: dict[str, tuple[Any, ...]] = {}
    twice = Counter(row[0] for row in rows)
    by_number: Counter[str] = Counter()
    for trace, *rest in rows:
        stored[trace] = tuple(rest)
        with suppress(ValueError, TypeError, LookupError):
            by_number[json.loads(rest[2])[-1]["content"].split(maxsplit=1)[1]] += 1
    _report(scene, "traces are twice in the store", [t for t, n in twice.items() if n > 1])
    answered = [attempt for attempt in scene.load.attempts if attempt.answered]
    journal = scene.data_dir / "journal"
    left = dict.fromkeys(_traces_below(journal / "damaged"), "set aside")
    left |= dict.fromkeys(_traces_below(journal), "still in the journal")
    missing = [a for a in answered if a.trace not in stored]
    _report(
        scene,
        "answered requests are not in the store",
        [
            f"{a.number} {a.trace} at {scene.since(a.ended):.1f} s: {left.get(a.trace or '', '?')}"
            for a in missing
        ],
    )
    _report(
        scene,
        "requests are logged more often than they were asked",
        [number for number, times in by_number.items() if times > 1 and number.isdigit()],
    )
    _report(
        scene,
        "traces say something else than the client saw",
        [
            f"{a.number} {stored[a.trace][:2]}"
            for a in answered
            if a.trace in stored and not _agrees(stored[a.trace], a.number, a.route, a.status)
        ],
    )
    return {"traces": len(rows), "answered": len(answered), "feedback": len(scene.load.feedback)}


def _agrees(row: tuple[Any, ...], number: str, route: str | None, status: int) -> bool:
    served_by, logged, messages, _ = row
    if (served_by == "student") != (route == "student") or logged != status:
        return False
    return bool(json.loads(messages) == wire.messages(number))


def _traces_below(folder: Path) -> Iterator[str]:
    """The ids of the traces in a folder's segments."""
    for path in _regular(folder):
        for line in path.read_bytes().split(b"\n"):
            with suppress(ValueError, TypeError, LookupError, RecursionError):
                yield str(json.loads(line)["trace_id"])


def _report(scene: Scene, what: str, found: list[str]) -> None:
    if found:
        scene.report(f"{len(found)} {what}: {', '.join(found[:SHOWN])}")
