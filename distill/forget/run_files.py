"""What an ended run leaves in its folder, and what of it goes: its texts, or all of it.

An ended run needs its adapter and its route, for whoever promotes its student by hand. All else is
there so that a run which was killed can go on: rows, synthetic inputs, answers, evaluations. Those
are copies of what clients and teachers said.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from distill.pipeline.promotion import FILE as ROUTE
from distill.pipeline.rows import ROWS
from store.records import Promotion, RunEvent

KEPT = (ROUTE, "calls.jsonl", "starts.jsonl")  # numbers, and the forms of answers
KEPT_OF_TRAINING = ("config.yaml", "report.json")  # beside the adapter's folder; numbers too
DAY_S = 86_400.0


def run_folders(runs_dir: Path) -> dict[str, Path]:
    """The folders of runs by the run's id. Whatever else lies there is not ours."""
    found = {}
    with suppress(FileNotFoundError):
        for path in runs_dir.iterdir():
            if path.is_dir() and not path.is_symlink() and _is_id(path.name):
                found[path.name] = path
    return found


def traces_in(folder: Path) -> set[str]:
    """The ids of the traces whose texts a run's folder holds. None once it was stripped."""
    found = set()
    with suppress(FileNotFoundError):
        for line in (folder / ROWS).read_bytes().split(b"\n"):
            with suppress(orjson.JSONDecodeError, KeyError, TypeError):
                found.add(str(orjson.loads(line)["trace_id"]))
    return found


def strip(folder: Path, adapter: str | None) -> None:
    """Deletes from the folder of an ended run everything that holds texts. May be done again.

    `adapter`: its place in the folder; None for a run without a student, which leaves nothing.
    """
    if adapter is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    kept_folder = folder / adapter
    training = kept_folder.parent
    kept = {folder / name for name in KEPT} | {training / name for name in KEPT_OF_TRAINING}
    for path in sorted(folder.rglob("*"), reverse=True):  # what is inside a folder comes first
        if path in kept or path == kept_folder or kept_folder in path.parents:
            continue
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # something in it is kept
                path.rmdir()
        elif path.name != ROWS or path.parent != folder:
            path.unlink(missing_ok=True)
    (folder / ROWS).unlink(missing_ok=True)  # last: as long as it is there, there is more to do


def too_old(
    ended: Mapping[str, Sequence[RunEvent]],
    history: Mapping[str, Sequence[Promotion]],
    folders: Iterable[str],
    before: float,
) -> list[str]:
    """The runs whose folders go: those that ended before a time, and are needed no more.

    `ended`: by task, the last events of its ended runs, oldest first. `history`: by task, its
    promotions, newest first. Needed are a task's last run, and the student that was promoted last,
    whether it serves or was demoted. A folder of a run that has not ended is nobody's to delete.
    """
    needed = {events[-1].run_id for events in ended.values() if events}
    for promotions in history.values():
        last = next((p.run_id for p in promotions if p.run_id is not None), None)
        if last is not None:
            needed.add(last)
    old = {e.run_id for events in ended.values() for e in events if e.at < before}
    return sorted((old - needed) & set(folders))


def _is_id(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
