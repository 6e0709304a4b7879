"""The kind `lora`: a LoRA adapter on a pretrained base, trained and served by mlx_lm.

It trains on real rows, alone and with synthetic ones; the better adapter is chosen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from distill.dataset.answers import Answers
from distill.dataset.rows import Row
from distill.kinds.kind import Trained
from distill.run.progress import Progress
from distill.run.run import Run, some_rows
from distill.students.server import StudentServer
from distill.students.students import StudentProcess, StudentSpec
from distill.train.train import TrainItem, TrainReport, train
from store.errors import TrainingError
from store.records import Example, KindName
from store.settings.tasks import TaskSettings

MAX_VALIDATION_ROWS = 256  # rows of the calibration split that training validates on


class LoraKind:
    """Learns any text by adapting a base."""

    name: KindName = "lora"
    learns_examples = True

    def unfit(self, answers: Answers, settings: TaskSettings) -> str:
        """It learns every kind of answer, where there is mlx_lm and a base."""
        base = settings.train.base
        if not base:
            return "no base is set in train.base"
        if base.startswith(("/", ".", "~")) and not Path(base).is_dir():
            return f"train.base {base} is no folder"
        return "" if find_spec("mlx_lm") else "mlx_lm is not installed"

    async def train(
        self,
        run: Run,
        real: Sequence[Row],
        calibration: Sequence[Row],
        examples: Sequence[Example],
        progress: Progress,
    ) -> Trained:
        """Trains on real rows alone and on real and synthetic ones; chooses the better student.

        It is chosen on the calibration split, so synthetic examples are used only if they help.
        """
        settings = run.settings.train
        real_items = [TrainItem(r.messages, r.target) for r in real]
        synthetic = [TrainItem.from_example(e) for e in examples if e.status == "kept"]
        checked = some_rows(list(calibration), MAX_VALIDATION_ROWS)
        valid = [TrainItem(r.messages, r.target) for r in checked]

        candidates: dict[str, list[TrainItem]] = {}
        failures: list[BaseException] = []
        if synthetic:
            candidates["real+synthetic"] = [*real_items, *synthetic]
        if settings.compare or not synthetic:
            candidates["real"] = real_items
        try:
            reports = await _train_all(run, candidates, valid, progress)
        except* TrainingError as failed:
            failures += failed.exceptions
        if failures:
            raise failures[0]
        best = max(reports, key=lambda n: (reports[n].valid_agreement, -reports[n].best_val_loss))
        numbers = {
            "chosen": best,
            "candidates": {
                name: {"rows": len(candidates[name]), **report.numbers()}
                for name, report in reports.items()
            },
        }
        return Trained(reports[best].adapter, best, self.name, settings.base, numbers)

    def servers(self, log_dir: Path) -> Callable[[StudentSpec], StudentProcess]:
        """A `mlx_lm.server` for each student."""

        def server(spec: StudentSpec) -> StudentServer:
            name = f"student-{spec.student_id}"
            return StudentServer(spec.base, spec.adapter, spec.settings, log_dir, name)

        return server


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
