"""A trained student in the history of its run: written down, and found again."""

from __future__ import annotations

from pathlib import Path

from distill.kinds.kind import Trained
from distill.kinds.registry import kind_named
from distill.run.run import Run
from store.errors import RunError
from store.jsontext import JsonObject


def training_detail(run: Run, trained: Trained) -> JsonObject:
    """What the run's history keeps of a training; `trained_student` reads it back."""
    return {
        "kind": trained.kind,
        "base": trained.base,
        "adapter": str(trained.adapter.relative_to(run.folder)),
        **trained.numbers,
    }


def trained_student(folder: Path, detail: JsonObject) -> Trained:
    """The student in a run's folder, from what `training_detail` left in the run's history.

    Runs of before there were kinds have `lora`. Raises RunError when its files are gone, or this
    version does not know its kind.
    """
    adapter = folder / str(detail.get("adapter", ""))
    if not detail or not adapter.is_dir():
        raise RunError("the adapter is gone")
    kind = kind_named(str(detail.get("kind", "lora")))
    return Trained(
        adapter,
        str(detail.get("chosen", "real")),
        kind.name,
        str(detail.get("base", "")),
    )
