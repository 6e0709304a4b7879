"""The third stage: trains on real rows, alone and with synthetic ones; the better is chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distill.dataset.rows import Row
from distill.run.history import StageResult
from distill.run.progress import Progress
from distill.run.run import Run, some_rows
from distill.train.train import TrainItem, TrainReport, train
from store.records import Example

MAX_VALIDATION_ROWS = 256  # rows of the calibration split that training validates on


@dataclass(frozen=True, slots=True)
class Trained:
    """The chosen adapter, and the kind of rows that it was trained on."""

    adapter: Path
    trained_on: str  # `real` or `real+synthetic`


async def train_best(
    run: Run,
    real: list[Row],
    calibration: list[Row],
    examples: list[Example],
    progress: Progress,
) -> StageResult[Trained]:
    """Trains on real rows alone and on real and synthetic ones; chooses the better student.

    It is chosen on the calibration split, so synthetic examples are used only if they help.
    """
    settings = run.settings.train
    real_items = [TrainItem(r.messages, r.target) for r in real]
    synthetic = [TrainItem.from_example(e) for e in examples if e.status == "kept"]
    valid = [TrainItem(r.messages, r.target) for r in some_rows(calibration, MAX_VALIDATION_ROWS)]

    candidates: dict[str, list[TrainItem]] = {}
    if synthetic:
        candidates["real+synthetic"] = [*real_items, *synthetic]
    if settings.compare or not synthetic:
        candidates["real"] = real_items
    reports = await _train_all(run, candidates, valid, progress)
    best = max(reports, key=lambda n: (reports[n].valid_agreement, -reports[n].best_val_loss))
    return StageResult(
        Trained(reports[best].adapter, best),
        {
            "chosen": best,
            "base": settings.base,
            "adapter": str(reports[best].adapter.relative_to(run.folder)),
            "candidates": {
                name: {"rows": len(candidates[name]), **report.numbers()}
                for name, report in reports.items()
            },
        },
    )


async def _train_all(
    run: Run,
    candidates: Mapping[str, list[TrainItem]],
    valid: list[TrainItem],
    progress: Progress,
) -> dict[str, TrainReport]:
    """Trains the candidates, `train.parallel` at a time. Returns their reports by name."""
    settings = run.settings.train
    slots = asyncio.Semaphore(settings.parallel)
    callbacks = _side_by_side(progress, list(candidates))

    async def one(name: str, items: list[TrainItem]) -> TrainReport:
        async with slots:
            return await train(
                run.folder / f"train-{name.replace('+', '-')}",
                train=items,
                valid=valid,
                settings=settings,
                progress=callbacks[name],
            )

    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(one(name, items)) for name, items in candidates.items()}
    return {name: task.result() for name, task in tasks.items()}


def _side_by_side(progress: Progress, names: list[str]) -> dict[str, Progress]:
    """A progress callback for each candidate; together they fill one bar of the stage."""
    progresses: dict[str, tuple[float, float]] = {}

    def callback(name: str) -> Progress:
        def report(stage: str, done: float, total: float, note: str) -> None:
            progresses[name] = (done, total)
            all_done = sum(d for d, _ in progresses.values())
            all_total = sum(t for _, t in progresses.values()) * len(names) / len(progresses)
            progress(stage, all_done, all_total, f"{name}: {note}")

        return report

    return {name: callback(name) for name in names}
