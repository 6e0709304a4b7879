"""Held out in time: whether a certificate is true for what follows, and what it costs in coverage.

    .venv/bin/python -m bench.drift LOG… [--rows N] [--splits 8] [--threshold 0.95] [--json]

Each log is a stream in several random orders. The last fifth *follows*: nobody sees it before the
verdict. On the rest a stand-in student (bench.groups) is trained and judged twice by the product's
own selection and gate: with the newest groups held out, and with held-out groups of any age, as a
hash splits them. Three drifts:

none      the stream as it is
answers   for every third answer the teacher changes to another one, ever more often, for up to
          DRIFT of the requests at the end of the stream
arrivals  every third answer begins to occur in the second half of the stream

A line says how much was certified, how often, how often the student agrees on what it then serves
of the rest, and in how many of the streams with a certificate that lies below the threshold. It is
one draw of the rest, so that a certificate which holds exactly may be below by chance. Without
logs, the same is simulated for students whose agreement falls evenly with time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.groups import MODEL, certificates, evaluated_by, exchanges, learn
from demo.backtest.logs import LogRow, read_rows
from distill.dataset.answers import answers_of
from distill.dataset.rows import Row, choose_rows
from distill.dataset.split import SplitGroup, split_groups
from distill.evaluate.scoring import choose_scorer
from distill.gate.bounds import Floats
from distill.gate.cutoffs import choose_cutoffs, serves
from distill.gate.gate import attempt_alpha, certify
from store.jsontext import JsonObject
from store.records import Certificate, Evaluation, LoggedExchange
from store.settings.tasks import GateSettings, TaskSettings

FOLLOWS = 0.2  # of a stream
DRIFT = 0.3  # of the requests with a drifting answer, at the end of a stream
WAYS = ("newest", "hash")
DRIFTS = ((0.98, 0.98), (0.995, 0.96), (0.995, 0.945), (0.995, 0.93), (0.995, 0.9))
GROUPS, AHEAD = 3_000, 0.25  # of a simulated stream: its groups, and how much longer it goes on

Stream = list[LogRow]


def drifting(rows: Sequence[LogRow], kind: str, seed: int) -> Stream:
    """The log in a random order, with a drift."""
    rng = np.random.default_rng([20241204, seed])
    stream = [rows[place] for place in rng.permutation(len(rows))]
    answers = sorted({row.answer for row in stream})
    moving = set(answers[::3])
    other = {answer: answers[(place + 1) % len(answers)] for place, answer in enumerate(answers)}
    if kind == "answers":
        return [
            replace(row, answer=other[row.answer])
            if row.answer in moving and rng.random() < DRIFT * place / len(stream)
            else row
            for place, row in enumerate(stream)
        ]
    if kind == "arrivals":
        half = len(stream) // 2
        early = [row for row in stream[:half] if row.answer not in moving]
        late = [row for row in stream[:half] if row.answer in moving] + stream[half:]
        return [*early, *(late[place] for place in rng.permutation(len(late)))]
    return stream


def judged(stream: Stream, way: str, threshold: float) -> tuple[Certificate, float, float]:
    """(certificate, coverage of what follows, agreement on what is served of it)."""
    settings = TaskSettings()
    seen = stream[: len(stream) - int(FOLLOWS * len(stream))]
    log = exchanges(seen, range(len(seen)))
    if way == "hash":
        log = [replace(one, asked_at=0.0, answered_at=0.0) for one in log]
    selection = choose_rows(log, settings.split)
    student = learn(selection.lessons)
    [certificate] = certificates(selection, student, settings, [threshold])
    later = _rows_of(exchanges(stream[len(seen) :], range(len(stream) - len(seen))))
    scorer = choose_scorer(answers_of(selection.seen), settings.evaluate)
    answered = evaluated_by(later, student, scorer.name)
    served = [e for e in answered if serves(e, certificate.cutoff)]
    agreement = float(np.mean([e.agrees for e in served])) if served else 1.0
    return certificate, len(served) / max(len(answered), 1), agreement


def _rows_of(log: Sequence[LoggedExchange]) -> list[Row]:
    """One row for each exchange, as it comes."""
    return [choose_rows([one], TaskSettings().split).rows[0] for one in log]


def on_logs(
    logs: Sequence[Path], rows: int | None, splits: int, threshold: float
) -> list[JsonObject]:
    """A line for each log, drift and way."""
    results = []
    for log in logs:
        read = read_rows(log)[:rows]
        for kind in ("none", "answers", "arrivals"):
            for way in WAYS:
                outcomes = [
                    judged(drifting(read, kind, seed), way, threshold) for seed in range(splits)
                ]
                results.append(
                    {
                        "log": log.stem,
                        "drift": kind,
                        "held out": way,
                        **_line(outcomes, threshold),
                    }
                )
    return results


def _line(outcomes: Sequence[tuple[Certificate, float, float]], threshold: float) -> JsonObject:
    passed = [(c, covered, agreed) for c, covered, agreed in outcomes if c.passed]
    below = sum(agreed < threshold for _, _, agreed in passed)
    return {
        "certified": float(np.mean([c.coverage if c.passed else 0.0 for c, _, _ in outcomes])),
        "passed": len(passed) / len(outcomes),
        "follows": float(np.mean([agreed for _, _, agreed in passed])) if passed else None,
        "below": f"{below} of {len(passed)}",
    }


# ---- simulated ---------------------------------------------------------------------------------


def simulated(rounds: int) -> list[JsonObject]:
    """Students whose agreement falls evenly from `begins` to `ends`, and on after the stream.

    A certificate is wrong when the mean agreement of what follows lies below the threshold.
    """
    gate = GateSettings(threshold=0.95)
    results = []
    for begins, ends in DRIFTS:
        follows = ends + (ends - begins) * AHEAD / 2
        line: JsonObject = {"begins": begins, "ends": ends, "follows": round(follows, 4)}
        for way in WAYS:
            rng = np.random.default_rng([20241205, int(1000 * begins), int(1000 * ends)])
            chances = {
                split: begins + (ends - begins) * times for split, times in _times(way).items()
            }
            passed = sum(_certified(rng, chances, gate) for _ in range(rounds)) / rounds
            line[f"{way}_passed"] = passed
            line[f"{way}_wrong"] = passed if follows < gate.threshold else 0.0
        results.append(line)
    return results


def _times(way: str) -> dict[str, Floats]:
    """When the calibration and the held-out groups of a stream from 0 to 1 begin."""
    times = {str(place): place / GROUPS for place in range(GROUPS)}
    groups = [
        SplitGroup(name=name, began=time if way == "newest" else 0.0, can_judge=True)
        for name, time in times.items()
    ]
    splits = split_groups(groups, TaskSettings().split).by_name
    return {
        split: np.array([time for name, time in times.items() if splits[name] == split])
        for split in ("calibration", "heldout")
    }


def _certified(rng: np.random.Generator, chances: Mapping[str, Floats], gate: GateSettings) -> bool:
    """Whether a student passes whose groups agree with these chances."""
    rows = {split: _rows(rng, chance) for split, chance in chances.items()}
    cutoffs = choose_cutoffs(
        rows["calibration"], gate, heldout=len(rows["heldout"]), alpha=attempt_alpha(gate, 1)
    )
    return certify(
        rows["heldout"],
        cutoffs,
        gate,
        attempt=1,
        output="text",
        task="bench",
        run_id="run",
        scorer="exact",
        fingerprints=[MODEL],
        now=0.0,
    ).passed


def _rows(rng: np.random.Generator, chances: Floats) -> list[Evaluation]:
    agreements = rng.random(len(chances)) < chances
    return [
        Evaluation(
            run_id="run",
            input_hash=str(place),
            split="heldout",
            scorer="exact",
            score=float(agrees),
            agrees=bool(agrees),
            teacher_output="a",
            student_output="a" if agrees else "b",
            confidence=1.0,  # all alike: one cutoff, since nothing tells the answers apart
            latency_ms=1.0,
            fingerprint=MODEL,
        )
        for place, agrees in enumerate(agreements)
    ]


def main() -> None:
    """Prints a table, or the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("logs", nargs="*", type=Path, help="as `understudy backtest` reads them")
    parser.add_argument("--rows", type=int, help="of each log, from its beginning")
    parser.add_argument("--splits", type=int, default=8, help="random orders of a log")
    parser.add_argument("--rounds", type=int, default=400, help="of the simulation")
    parser.add_argument("--threshold", type=float, default=0.95)
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    arguments = parser.parse_args()
    if arguments.logs:
        lines = on_logs(arguments.logs, arguments.rows, arguments.splits, arguments.threshold)
    else:
        lines = simulated(arguments.rounds)
    if arguments.json:
        print(json.dumps(lines, indent=1))
        return
    shown = Table()
    for name in lines[0]:
        shown.add_column(name)
    for line in lines:
        shown.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in line.values()))
    Console(width=None if Console().is_terminal else 160).print(shown)


if __name__ == "__main__":
    main()
