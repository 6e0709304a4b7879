"""The fourth stage: the student answers rows that it was not trained on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from distill.dataset.rows import Row, Selection
from distill.evaluate.confidence_fit import fit_confidence
from distill.evaluate.evaluate import evaluate
from distill.evaluate.evaluations import Evaluations
from distill.evaluate.frequent import check_inputs
from distill.evaluate.scoring import Scorer, run_scoring
from distill.gate.frequent import InputCheck
from distill.kinds.kind import Trained
from distill.kinds.registry import student_servers
from distill.run.history import StageResult
from distill.run.progress import Progress
from distill.run.run import Parts, Run, some_groups
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

CHECKS = "frequent-checked.jsonl"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the evaluation of a run's student yields."""

    evaluations: Evaluations  # each row with its confidence by the model
    confidence: ConfidenceModel
    checks: list[InputCheck] = field(default_factory=list)  # of the frequent inputs


async def evaluate_student(  # noqa: PLR0917  (each is a result of the stages before)
    run: Run,
    parts: Parts,
    selection: Selection,
    trained: Trained,
    scorer: Scorer,
    terms: TermsOfService,
    progress: Progress,
    calibration: Sequence[Evaluation] | None = None,
) -> StageResult[Evaluated]:
    """Asks the student for every calibration, held-out and frequent row as the proxy would ask it.

    `calibration`: the rows of that split, where the race has asked for them already. Then fits the
    confidence model on the calibration rows and sets every row's confidence by it.
    The file in the run's folder is enough to fit the same model again.
    """
    file = run.folder / "evaluations.jsonl"
    if file.exists():
        lines = await asyncio.to_thread(read_lines, file)
        checks = await asyncio.to_thread(read_checks, run.folder)
        evaluated = with_confidence([evaluation_of(line) for line in lines], checks)
        return StageResult(evaluated, _numbers(evaluated, trained, scorer))
    most = run.settings.evaluate.max_rows
    rows = [*some_groups(selection.heldout, most), *selection.checked]
    if calibration is None:
        rows = [*some_groups(selection.calibration, most), *rows]
    asked = await answered(run, parts, rows, trained, scorer, terms, progress)
    evaluations = [*(calibration or ()), *asked]
    async with run_scoring(run, parts, rows, scorer) as score:
        checks = await check_inputs(selection, evaluations, scorer, score)
    evaluated = with_confidence(evaluations, checks)
    checked = b"".join(to_json_line(replace(check, evaluation=None)) for check in checks)
    await asyncio.to_thread(write_atomically, run.folder / CHECKS, checked)
    content = b"".join(to_json_line(e) for e in evaluated.evaluations.rows)
    await parts.store.replace_evaluations(run.run_id, evaluated.evaluations.rows)
    await asyncio.to_thread(write_atomically, file, content)
    return StageResult(evaluated, _numbers(evaluated, trained, scorer))


async def answered(  # noqa: PLR0917  (each is a result of the stages before)
    run: Run,
    parts: Parts,
    rows: Sequence[Row],
    trained: Trained,
    scorer: Scorer,
    terms: TermsOfService,
    progress: Progress,
) -> list[Evaluation]:
    """The rows as the student answers them, in their order. Raises StudentError."""
    settings = run.settings
    progress("evaluate", 0, len(rows), "starting the student")
    spec = trained.spec(run.run_id, settings.student)
    server = student_servers(run.folder / "evaluate")(spec)
    async with run_scoring(run, parts, rows, scorer) as score, started(server):
        return await evaluate(
            server.base_url,
            rows,
            run_id=run.run_id,
            terms=terms,
            scorer=scorer,
            settings=settings.evaluate,
            progress=progress,
            score=score,
        )


def with_confidence(
    evaluations: Sequence[Evaluation], checks: Sequence[InputCheck] = ()
) -> Evaluated:
    """Fits the confidence model on the calibration rows alone and sets every row's confidence.

    `checks`: of the frequent inputs among the rows.
    """
    model = fit_confidence(Evaluations(evaluations).calibration)
    rows = [
        replace(e, confidence=confidence_of(e.signals, model) if e.signals else None)
        for e in evaluations
    ]
    return Evaluated(Evaluations(rows), model, joined(checks, rows))


def joined(checks: Sequence[InputCheck], evaluations: Sequence[Evaluation]) -> list[InputCheck]:
    """The checks of frequent inputs, each with the evaluation of its row."""
    known = {(e.fingerprint, e.input_hash): e for e in Evaluations(evaluations).frequent}
    return [replace(c, evaluation=known.get((c.fingerprint, c.input_hash))) for c in checks]


def read_checks(folder: Path) -> list[InputCheck]:
    """The checks in a run's folder, without their evaluations; none where there is no file."""
    path = folder / CHECKS
    return [InputCheck(**line) for line in read_lines(path)] if path.exists() else []


def _numbers(evaluated: Evaluated, trained: Trained, scorer: Scorer) -> JsonObject:
    return {
        "scorer": asdict(scorer),
        "trained_on": trained.trained_on,
        "confidence": asdict(evaluated.confidence),
        "calibration": _counts(evaluated.evaluations.calibration),
        "heldout": _counts(evaluated.evaluations.heldout),
        "frequent": _counts(evaluated.evaluations.frequent),
    }


def _counts(rows: Sequence[Evaluation]) -> dict[str, int]:
    return {"rows": len(rows), "agreed": sum(row.agrees for row in rows)}
