"""The fourth stage: the student answers rows that it was not trained on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from distill.dataset.rows import Selection
from distill.evaluate.confidence_fit import fit_confidence
from distill.evaluate.evaluate import evaluate
from distill.evaluate.evaluations import Evaluations
from distill.evaluate.scoring import Scorer, run_scoring
from distill.kinds.kind import Trained
from distill.kinds.registry import student_servers
from distill.run.history import StageResult
from distill.run.progress import Progress
from distill.run.run import Parts, Run, some_rows
from distill.students.students import started
from store.chat.confidence import confidence_of
from store.database.runs import evaluation_of
from store.files.atomic import read_lines, write_atomically
from store.jsontext import JsonObject, to_json_line
from store.records import (
    ConfidenceModel,
    Evaluation,
    TermsOfService,
)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the evaluation of a run's student yields."""

    evaluations: Evaluations  # each row with its confidence by the model
    confidence: ConfidenceModel


async def evaluate_student(  # noqa: PLR0917  (each is a result of the stages before)
    run: Run,
    parts: Parts,
    selection: Selection,
    trained: Trained,
    scorer: Scorer,
    terms: TermsOfService,
    progress: Progress,
) -> StageResult[Evaluated]:
    """Asks the student for every calibration and held-out row as the proxy would ask it.

    Then fits the confidence model on the calibration rows and sets every row's confidence by it.
    The file in the run's folder is enough to fit the same model again.
    """
    file = run.folder / "evaluations.jsonl"
    if file.exists():
        lines = await asyncio.to_thread(read_lines, file)
        evaluated = with_confidence([evaluation_of(line) for line in lines])
        return StageResult(evaluated, _numbers(evaluated, trained, scorer))
    settings = run.settings
    rows = [
        *some_rows(selection.calibration, settings.evaluate.max_rows),
        *some_rows(selection.heldout, settings.evaluate.max_rows),
    ]
    progress("evaluate", 0, len(rows), "starting the student")
    spec = trained.spec(run.run_id, settings.student)
    server = student_servers(run.folder / "evaluate")(spec)
    async with run_scoring(run, parts, rows, scorer) as score, started(server):
        evaluations = await evaluate(
            server.base_url,
            rows,
            run_id=run.run_id,
            terms=terms,
            scorer=scorer,
            settings=settings.evaluate,
            progress=progress,
            score=score,
        )
    evaluated = with_confidence(evaluations)
    content = b"".join(to_json_line(e) for e in evaluated.evaluations.rows)
    await parts.store.replace_evaluations(run.run_id, evaluated.evaluations.rows)
    await asyncio.to_thread(write_atomically, file, content)
    return StageResult(evaluated, _numbers(evaluated, trained, scorer))


def with_confidence(evaluations: Sequence[Evaluation]) -> Evaluated:
    """Fits the confidence model on the calibration rows alone and sets every row's confidence."""
    model = fit_confidence(Evaluations(evaluations).calibration)
    rows = [
        replace(e, confidence=confidence_of(e.signals, model) if e.signals else None)
        for e in evaluations
    ]
    return Evaluated(Evaluations(rows), model)


def _numbers(evaluated: Evaluated, trained: Trained, scorer: Scorer) -> JsonObject:
    return {
        "scorer": asdict(scorer),
        "trained_on": trained.trained_on,
        "confidence": asdict(evaluated.confidence),
        "calibration": _counts(evaluated.evaluations.calibration),
        "heldout": _counts(evaluated.evaluations.heldout),
    }


def _counts(rows: Sequence[Evaluation]) -> dict[str, int]:
    return {"rows": len(rows), "agreed": sum(row.agrees for row in rows)}
