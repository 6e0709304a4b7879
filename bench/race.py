"""Student kinds side by side: what each certifies of a task, what it costs, and whether it holds.

    .venv/bin/python -m bench.race LOG:TEST:ROWS… [--kinds label lora] [--json]

For each task and kind a whole run of the product on the first ROWS rows of LOG: its own choice of
rows, groups, split, training, server, evaluation and gate, with the settings that it ships (for
`lora` those of the tiny base), without synthetic examples. The verdicts at the thresholds are of
the same run. Then the student answers TEST, which no run has read: the share that it serves at the
certified cutoff, and the agreement of that with its exact 95 % interval. `foreign` is the share
that it serves, at the cutoff of 0.95, of the other tasks' test inputs sent under its own prompt.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.groups import exchanges
from demo.backtest.logs import LogRow, read_rows
from demo.base.student_settings import tiny_student
from distill.dataset.answers import answers_of
from distill.dataset.rows import Row, choose_rows
from distill.evaluate.ceiling import ceiling_of
from distill.evaluate.evaluations import Evaluations
from distill.evaluate.scoring import choose_scorer
from distill.gate.cutoffs import choose_cutoffs, serves
from distill.gate.gate import attempt_alpha, certify
from distill.gate.groups import GroupedRows
from distill.pipeline.evaluation import answered
from distill.pipeline.pipeline import distil
from distill.pipeline.promotion import saved_route
from distill.pipeline.rows import save_selection
from distill.pipeline.training import trained_student
from distill.run.run import Parts, Run
from distill.teacher.client import TeacherClient
from store.chat.confidence import confidence_of
from store.database.database import Database
from store.database.runs import certificates_of_task, evaluations_of_run, stage_detail
from store.database.store import Store
from store.errors import BacktestError
from store.ids import new_id
from store.jsontext import JsonObject
from store.records import Certificate, Evaluation, TeacherCall, TermsOfService
from store.settings.config import StoreSettings
from store.settings.tasks import TaskSettings

THRESHOLDS = (0.90, 0.95, 0.98)
TASK = "bench"


@dataclass(frozen=True, slots=True)
class Entrant:
    """A task of the bench."""

    name: str
    log: list[LogRow]
    test: list[LogRow]

    @classmethod
    def read(cls, described: str) -> Entrant:
        """From LOG:TEST:ROWS."""
        log, test, rows = described.split(":")
        name = Path(log).name.partition(".")[0]
        return cls(name, read_rows(Path(log))[: int(rows)], read_rows(Path(test)))


def settings_of(kind: str, rows: int) -> TaskSettings:
    """What the product ships, but for synthetic examples and the teacher's second answers."""
    raw = tiny_student(rows).model_dump()
    raw["student"]["kind"] = kind
    raw["amplify"]["target"] = 0
    raw["evaluate"]["teacher_recheck"] = 0
    raw["student"]["request_timeout_s"] = 60  # on a busy machine
    return TaskSettings.model_validate(raw)


async def measure(
    entrant: Entrant, kind: str, foreign: Sequence[LogRow], folder: Path
) -> list[JsonObject]:
    """A line for each threshold."""
    settings = settings_of(kind, len(entrant.log))
    run = Run(new_id(), TASK, settings, time.time(), folder / "run")
    selection = choose_rows(exchanges(entrant.log, range(len(entrant.log))), settings.split)
    answers = answers_of(selection.seen)
    scorer = choose_scorer(answers, settings.evaluate)
    save_selection(run.folder, selection, {})
    with Database(folder / "bench.duckdb", StoreSettings()) as db:
        parts = Parts(store=Store(db), clock=time.time, teacher=_no_teacher)
        began = time.monotonic()
        event = await distil(run, parts, _quiet)
        seconds = time.monotonic() - began
        certificates = certificates_of_task(db, TASK)
        route = saved_route(run.folder)
        if not certificates or route is None:
            return [{"task": entrant.name, "kind": kind, "error": event.reason}]
        [entry] = [e for e in certificates[0].race if e.won]
        evaluations = Evaluations(evaluations_of_run(db, run.run_id))
        trained = trained_student(run.folder, stage_detail(db, run.run_id, "trained"))
        terms = replace(route.terms, cutoff=None)

        async def asked(rows: Sequence[LogRow], like: Row) -> list[Evaluation]:
            test = [_test_row(row, like) for row in rows]
            found = await answered(run, parts, test, trained, scorer, terms, _quiet)
            return [replace(e, confidence=_confidence(e, terms)) for e in found]

        own = await asked(entrant.test, selection.rows[0])
        strange = await asked(foreign, selection.rows[0])
    agreed = sum(e.agrees for e in own) / len(own)
    shared: JsonObject = {
        "task": entrant.name,
        "kind": kind,
        "rows": len(entrant.log),
        "run s": round(seconds, 1),
        "train s": entry.seconds,
        "peak MB": entry.memory_mb,
        "disk MB": entry.disk_mb,
        "ms": sorted(e.latency_ms for e in own)[len(own) // 2],
        "test: all": agreed,
    }
    lines = []
    for threshold in THRESHOLDS:
        certificate = _certificate(evaluations, settings, threshold, certificates[0])
        line = {**shared, "threshold": threshold, "certified": 0.0}
        if certificate.passed:
            served = [e for e in own if serves(e, certificate.cutoff)]
            proof = ceiling_of(sum(e.agrees for e in served), len(served))
            line |= {
                "certified": certificate.coverage,
                "test: served": len(served) / len(own),
                "of it agrees": proof.share,
                "low": proof.low,
                "high": proof.high,
                "foreign": sum(serves(e, certificate.cutoff) for e in strange) / len(strange),
            }
        lines.append(line)
    return lines


def _certificate(
    evaluations: Evaluations, settings: TaskSettings, threshold: float, own: Certificate
) -> Certificate:
    gate = settings.gate.model_copy(update={"threshold": threshold})
    heldout = evaluations.heldout
    cutoffs = choose_cutoffs(
        evaluations.calibration,
        gate,
        heldout=len(GroupedRows(heldout)),
        alpha=attempt_alpha(gate, 1),
        output="label",
    )
    return certify(
        heldout,
        cutoffs,
        gate,
        attempt=1,
        output="label",
        task=TASK,
        run_id=own.run_id,
        scorer=own.scorer,
        fingerprints=own.fingerprints,
        now=own.at,
    )


def _test_row(row: LogRow, like: Row) -> Row:
    """A row of a test file, asked under the prompt of the task."""
    system = [m for m in like.messages if m["role"] == "system"]
    turns = [m for m in row.messages if m["role"] != "system"]
    return replace(
        like, input_hash=new_id(), messages=[*system, *turns], target=row.answer, group=None
    )


def _confidence(evaluation: Evaluation, terms: TermsOfService) -> float | None:
    signals = evaluation.signals
    return None if signals is None else confidence_of(signals, terms.confidence)


def _no_teacher(model: str, run: Run, record: Callable[[TeacherCall], None]) -> TeacherClient:
    raise BacktestError(f"run {run.run_id} asks {model}, and there is no teacher")


def _quiet(*_: object) -> None:
    pass


def main() -> None:
    """Prints a line for each task, kind and threshold, or the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="+", metavar="LOG:TEST:ROWS")
    parser.add_argument("--kinds", nargs="+", default=["label", "lora"])
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    arguments = parser.parse_args()
    entrants = [Entrant.read(described) for described in arguments.tasks]
    lines = []
    for entrant in entrants:
        foreign = [row for other in entrants if other is not entrant for row in other.test[:500]]
        for kind in arguments.kinds:
            with tempfile.TemporaryDirectory() as folder:
                lines += asyncio.run(measure(entrant, kind, foreign or entrant.test, Path(folder)))
    if arguments.json:
        print(json.dumps(lines, indent=1))
        return
    names = list(dict.fromkeys(name for line in lines for name in line))
    shown = Table()
    for name in names:
        shown.add_column(name, justify="left" if name in ("task", "kind", "error") else "right")
    for line in lines:
        cells = (line.get(name, "") for name in names)
        shown.add_row(*(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells))
    Console(width=None if Console().is_terminal else 220).print(shown)


if __name__ == "__main__":
    main()
