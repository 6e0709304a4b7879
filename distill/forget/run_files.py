"""The folders of runs: which files hold texts, and which folders are no longer needed.

An ended run needs its adapter and its route, so that its student can be promoted by hand.
Everything else is there so that an interrupted run can go on: rows, synthetic inputs, answers,
evaluations. Those are copies of the texts of clients and teachers.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from distill.pipeline.promotion import FILE as ROUTE
from distill.pipeline.rows import FREQUENT, ROWS
from store.records import Promotion, RunEvent

KEPT = (ROUTE, "calls.jsonl", "starts.jsonl")  # numbers, and the forms of answers
KEPT_OF_TRAINING = ("config.yaml", "report.json")  # beside the adapter's folder; numbers too
DAY_S = 86_400.0


def run_folders(runs_dir: Path) -> dict[str, Path]:
    """The folders of runs by run id. Anything else in there is left alone."""
    folders = {}
    with suppress(FileNotFoundError):
        for path in runs_dir.iterdir():
            if path.is_dir() and not path.is_symlink() and _is_id(path.name):
                folders[path.name] = path
    return folders


def traces_in(folder: Path) -> set[str]:
    """The ids of the traces whose texts a run's folder holds. Empty once it was stripped."""
    trace_ids = set()
    with suppress(FileNotFoundError):
        for line in (folder / ROWS).read_bytes().split(b"\n"):
            with suppress(orjson.JSONDecodeError, KeyError, TypeError):
                trace_ids.add(str(orjson.loads(line)["trace_id"]))
        for line in (folder / FREQUENT).read_bytes().split(b"\n"):
            with suppress(orjson.JSONDecodeError, KeyError, TypeError):
                answers = orjson.loads(line)["answers"]
                trace_ids.update(str(answer["trace_id"]) for answer in answers)
    return trace_ids


def strip(folder: Path, adapter: str | None) -> None:
    """Deletes from the folder of an ended run everything that holds texts. Idempotent.

    `adapter`: its path in the folder; None for a run without a student, whose folder is deleted.
    """
    if adapter is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    kept_folder = folder / adapter
    training = kept_folder.parent
    kept = {folder / name for name in KEPT} | {training / name for name in KEPT_OF_TRAINING}
    for path in sorted(folder.rglob("*"), reverse=True):  # a folder's content before the folder
        if path in kept or path == kept_folder or kept_folder in path.parents:
            continue
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # something in it is kept
                path.rmdir()
        elif path.name != ROWS or path.parent != folder:
            path.unlink(missing_ok=True)
    (folder / ROWS).unlink(missing_ok=True)  # last: it shows that there is more to do


def expired_runs(
    ended: Mapping[str, Sequence[RunEvent]],
    history: Mapping[str, Sequence[Promotion]],
    folders: Iterable[str],
    before: float,
) -> list[str]:
    """The runs whose folders can be deleted: they ended before a time, and are not needed any more.

    `ended`: by task, the last events of its ended runs, oldest first. `history`: by task, its
    promotions, newest first. Needed are a task's last run, and the student that was promoted last,
    whether it serves or was demoted. The folder of a run that has not ended is never deleted.
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
