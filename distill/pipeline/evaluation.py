"""The fourth stage: the student answers rows that it has not learned from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from distill.dataset.forms import forms_of
from distill.dataset.rows import Row
from distill.evaluate.confidence_fit import fit_confidence
from distill.evaluate.evaluate import evaluate
from distill.evaluate.judge import run_scoring
from distill.evaluate.scorers import Scorer
from distill.pipeline.training import Trained
from distill.run.history import StageResult
from distill.run.progress import Progress
from distill.run.run import Parts, Run, some_rows, student_tokens
from distill.students.server import StudentServer
from store.chat.confidence import confidence_of
from store.database.runs import evaluation_of, replace_evaluations
from store.files.atomic import read_lines, write_atomically
from store.jsontext import to_json_line
from store.records import (
    ConfidenceModel,
    Evaluation,
    Split,
)

EVALUATED: tuple[Split, ...] = ("calibration", "heldout")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What came of asking a run's student: every row judged, and how sure it is of an answer."""

    evaluations: list[Evaluation]  # their confidence is by the model
    confidence: ConfidenceModel


async def evaluate_student(  # noqa: PLR0917  (each is a result of the stages before)
    run: Run,
    parts: Parts,
    split: dict[Split, list[Row]],
    trained: Trained,
    scorer: Scorer,
    progress: Progress,
) -> StageResult[Evaluated]:
    """Asks the student for every calibration and held-out row as the proxy would ask it.

    Then fits the confidence on the calibration rows, and gives every row its own by it. What is
    left in the run's folder is enough to fit the same again.
    """
    file = run.folder / "evaluations.jsonl"
    if file.exists():
        lines = await asyncio.to_thread(read_lines, file)
        evaluated = judge_confidence([evaluation_of(line) for line in lines])
        return StageResult(evaluated, _numbers(evaluated, trained, scorer))
    settings = run.settings
    rows = [row for name in EVALUATED for row in some_rows(split[name], settings.evaluate.max_rows)]
    progress("evaluate", 0, len(rows), "starting the student")
    server = StudentServer(
        settings.train.base, trained.adapter, settings.student, run.folder / "evaluate"
    )
    async with run_scoring(run, parts, rows, scorer) as score, server:
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
            score=score,
            forms=forms_of(
                [row for name, part in split.items() if name != "heldout" for row in part],
                scorer.output,
                parts.placeholders,
            ),
        )
    evaluated = judge_confidence(evaluations)
    content = b"".join(to_json_line(e) for e in evaluated.evaluations)
    await asyncio.to_thread(replace_evaluations, parts.db, run.run_id, evaluated.evaluations)
    await asyncio.to_thread(write_atomically, file, content)
    return StageResult(evaluated, _numbers(evaluated, trained, scorer))


def judge_confidence(evaluations: Sequence[Evaluation]) -> Evaluated:
    """Fits the confidence on the calibration rows alone, and sets that of every row by it."""
    model = fit_confidence([e for e in evaluations if e.split == "calibration"])
    return Evaluated(
        [
            replace(e, confidence=confidence_of(e.signals, model) if e.signals else None)
            for e in evaluations
        ],
        model,
    )


def _numbers(evaluated: Evaluated, trained: Trained, scorer: Scorer) -> dict[str, Any]:
    counts: dict[str, Any] = {
        name: {
            "rows": sum(e.split == name for e in evaluated.evaluations),
            "agreed": sum(e.agrees for e in evaluated.evaluations if e.split == name),
        }
        for name in EVALUATED
    }
    return {
        "scorer": asdict(scorer),
        "trained_on": trained.trained_on,
        "confidence": asdict(evaluated.confidence),
        **counts,
    }
