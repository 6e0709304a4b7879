"""The fourth stage: the student answers rows that it has not learned from."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from distill.dataset import Row
from distill.evaluate import evaluate
from distill.progress import Progress
from distill.run import Parts, Run, some_rows, student_tokens
from distill.runlog import StageResult
from distill.scorers import Scorer
from distill.stage_training import Trained
from distill.student_server import StudentServer
from store import records
from store.files import read_lines, write_atomically
from store.models import Split
from store.verdicts import Evaluation

EVALUATED: tuple[Split, ...] = ("calibration", "heldout")


async def evaluate_student(  # noqa: PLR0917  (each is a result of the stages before)
    run: Run,
    parts: Parts,
    split: dict[Split, list[Row]],
    trained: Trained,
    scorer: Scorer,
    progress: Progress,
) -> StageResult[list[Evaluation]]:
    """Asks the student for every calibration and held-out row as the proxy would ask it."""
    file = run.folder / "evaluations.jsonl"
    if file.exists():
        lines = await asyncio.to_thread(read_lines, file)
        evaluations = [records.evaluation(line) for line in lines]
        return StageResult(evaluations, _numbers(evaluations, trained, scorer))
    settings = run.settings
    rows = [row for name in EVALUATED for row in some_rows(split[name], settings.evaluate.max_rows)]
    progress("evaluate", 0, len(rows), "starting the student")
    server = StudentServer(
        settings.train.base, trained.adapter, settings.student, run.folder / "evaluate"
    )
    async with server:
        evaluations = await evaluate(
            server.base_url,
            rows,
            run_id=run.run_id,
            scorer=scorer,
            output=scorer.output,
            max_tokens=student_tokens(rows),
            settings=settings.evaluate,
            timeout_s=settings.student.request_timeout_s,
            progress=progress,
        )
    content = b"".join(records.as_line(e) for e in evaluations)
    await asyncio.to_thread(records.replace_evaluations, parts.db, run.run_id, evaluations)
    await asyncio.to_thread(write_atomically, file, content)
    return StageResult(evaluations, _numbers(evaluations, trained, scorer))


def _numbers(evaluations: list[Evaluation], trained: Trained, scorer: Scorer) -> dict[str, Any]:
    counts: dict[str, Any] = {
        name: {
            "rows": sum(e.split == name for e in evaluations),
            "agreed": sum(e.agrees for e in evaluations if e.split == name),
        }
        for name in EVALUATED
    }
    return {"scorer": asdict(scorer), "trained_on": trained.trained_on, **counts}
