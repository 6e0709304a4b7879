"""How well a student's confidence tells right from wrong, on rows that it was not fitted on.

    understudy backtest logs.jsonl --limit 1200 --keep kept
    .venv/bin/python -m bench.confidence kept logs.jsonl [--rows 2500]

Asks the student of a kept backtest again: for its calibration rows, its held-out rows, and for
those rows of the logs that its training has not seen. The confidence is fitted on the calibration
rows alone; the results are those on the others. For each order of the answers: AUROC, the
probability that a right answer ranks above a wrong one, and the coverage, the largest share from
the top with the wanted agreement.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from demo.backtest.logs import read_rows as read_logs
from demo.base.student_settings import tiny_student
from distill.dataset.answers import answers_of
from distill.dataset.rows import Row, Selection, read_rows
from distill.evaluate.confidence_fit import fit_confidence
from distill.evaluate.evaluate import evaluate
from distill.evaluate.evaluations import Evaluations
from distill.evaluate.scoring import choose_scorer
from distill.run.run import student_tokens
from distill.students.server import StudentServer
from distill.train import blas
from store.chat.confidence import certainties, confidence_of
from store.chat.student_wire import student_messages
from store.files.atomic import read_lines
from store.records import ConfidenceModel, Evaluation, TermsOfService

os.environ.setdefault(blas.VARIABLE, blas.WHEEL)  # a fast matrix product for students

_Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Kept:
    """The parts of a kept run that are needed here."""

    adapter: Path
    rows: list[Row]  # calibration and held-out
    unseen: list[Row]  # of the logs, those that nothing was trained on


def kept_run(folder: Path, logs: Path, *, max_rows: int, adapter: str) -> Kept:
    """Reads a kept data folder. Raises SystemExit when there is no run in it."""
    runs = sorted((folder / "data" / "runs").glob(f"*/{adapter}/adapter"))
    if not runs:
        raise SystemExit(f"{folder}: no run with {adapter}; keep one with understudy backtest")
    run = runs[-1].parent.parent
    rows = read_rows(run / "rows.jsonl")
    trained = chain.from_iterable(map(read_lines, run.glob("train-*/data/*.jsonl")))
    seen = {str(line["messages"][:-1]) for line in trained}
    seen |= {str(student_messages(row.messages)) for row in rows}
    unseen: list[Row] = []
    for number, logged in enumerate(read_logs(logs)):
        text = str(student_messages(logged.messages))
        if text in seen or len(unseen) == max_rows:
            continue
        seen.add(text)
        unseen.append(
            Row(
                trace_id=str(number),
                input_hash=str(number),
                split="heldout",
                fingerprint="",
                model="",
                messages=logged.messages,
                params={},
                target=logged.answer,
            )
        )
    chosen = Selection(rows)
    return Kept(runs[-1], [*chosen.calibration, *chosen.heldout], unseen)


async def evaluations_of(kept: Kept) -> list[Evaluation]:
    """Every row, asked of the kept student."""
    settings = tiny_student()
    scorer = choose_scorer(answers_of(kept.rows), settings.evaluate)
    with tempfile.TemporaryDirectory(prefix="understudy-bench-") as logs:
        base = settings.train.base
        async with StudentServer(base, kept.adapter, settings.student, Path(logs)) as server:
            return await evaluate(
                server.base_url,
                [*kept.rows, *kept.unseen],
                run_id="bench",
                terms=TermsOfService(
                    output=scorer.output, max_tokens=student_tokens(kept.rows), timeout_s=60
                ),
                scorer=scorer,
                settings=settings.evaluate,
                progress=tell,
            )


def tell(_: str, done: float, total: float, note: str) -> None:
    """Progress on stderr."""
    if done % 100 == 0 or done == total:
        print(f"\r{done:g} of {total:g} rows, {note}  ", end="", file=sys.stderr)


def auroc(order: _Floats, agrees: _Floats) -> float:
    """AUROC: the probability that an agreeing answer ranks above another one; ties count half."""
    right, wrong = int(agrees.sum()), int((1 - agrees).sum())
    if not right or not wrong:
        return float("nan")
    ranks = stats.rankdata(order)[agrees == 1].sum()
    return float((ranks - right * (right + 1) / 2) / (right * wrong))


def coverage(order: _Floats, agrees: _Floats, wanted: float) -> float:
    """The largest share of the answers, the surest first, that agree as often as wanted."""
    place = np.argsort(-order, kind="stable")
    good = np.flatnonzero(np.cumsum(agrees[place]) / np.arange(1, len(place) + 1) >= wanted)
    return (good[-1] + 1) / len(place) if good.size else 0.0


def orders(rows: Sequence[Evaluation], model: ConfidenceModel) -> dict[str, _Floats]:
    """The rows' places by each signal, and by the fitted confidence."""
    signals = [e.signals for e in rows if e.signals is not None]
    confidences = {"lowest": np.array([s.lowest for s in signals])}
    for name in model.weights:
        confidences[name] = np.array([certainties(s)[name] for s in signals])
    confidences["fitted"] = np.array([confidence_of(s, model) for s in signals])
    return confidences


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kept", type=Path, help="folder of understudy backtest --keep")
    parser.add_argument("logs", type=Path, help="the file that it was made from")
    parser.add_argument("--rows", type=int, default=2500, help="at most so many more of the logs")
    parser.add_argument("--adapter", default="train-real-synthetic", help="or train-real")
    parser.add_argument("--without", nargs="*", default=[], help="leave these answers out")
    arguments = parser.parse_args()

    kept = kept_run(
        arguments.kept, arguments.logs, max_rows=arguments.rows, adapter=arguments.adapter
    )
    evaluations = [
        e for e in asyncio.run(evaluations_of(kept)) if not e.fault and e.signals is not None
    ]
    calibration = Evaluations(evaluations).calibration
    others = [
        e for e in Evaluations(evaluations).heldout if e.student_output not in arguments.without
    ]
    model = fit_confidence(calibration)
    agrees = np.array([e.agrees for e in others], dtype=np.float64)

    weights = ", ".join(f"{name} {weight:.3f}" for name, weight in model.weights.items())
    print(f"\nfitted on {len(calibration)} calibration rows: {weights}", file=sys.stderr)
    print(f"{len(others)} other rows, agreement {agrees.mean():.3f}\n")
    print("| order | AUROC | coverage at 0.95 | at 0.98 |\n|---|---|---|---|")
    for name, order in orders(others, model).items():
        at = [coverage(order, agrees, wanted) for wanted in (0.95, 0.98)]
        print(f"| {name} | {auroc(order, agrees):.3f} | {at[0]:.3f} | {at[1]:.3f} |")
    fitted = orders(others, model)["fitted"]
    print(
        f"\nmean confidence {fitted.mean():.3f}, Brier score {np.mean((fitted - agrees) ** 2):.4f}"
    )


if __name__ == "__main__":
    main()
