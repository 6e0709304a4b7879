"""What grouping costs: the coverage that is certified with groups as units, and with rows.

    .venv/bin/python -m bench.groups LOG… [--rows N] [--splits 8] [--threshold 0.9 0.95] [--json]

Each log is replayed in several random orders, so that another part of it is the newest and held
out. In each order three ways are tried on the same rows: *groups* as the product makes them
(distill.dataset.rows, distill.dataset.groups); *rows*, each input by itself, as before there were
groups; and *no copies*, the same without the judged rows that are in one group with a row that was
learned. All are split by distill.dataset.split and judged by distill.gate. The student is a
stand-in that learns in seconds, least squares on TF-IDF of words and characters; it learns from the
train rows of its way.
So the first two differ by all that grouping does, and the first and the last by what it costs
beside keeping copies of what was learned from being judged. No test file is read.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from demo.backtest.logs import LogRow, read_rows
from distill.dataset.answers import answers_of
from distill.dataset.rows import Row, Selection, choose_rows
from distill.dataset.split import SplitGroup, split_groups
from distill.evaluate.scorers.registry import score
from distill.evaluate.scoring import choose_scorer
from distill.gate.cutoffs import choose_cutoffs
from distill.gate.gate import attempt_alpha, certify
from distill.gate.groups import GroupedRows
from distill.run.run import some_rows
from store.chat.normal_form import normal_answer
from store.chat.shape import fingerprint, input_hash, text_of
from store.jsontext import JsonObject
from store.records import Certificate, Evaluation, LoggedExchange, LoggedRequest
from store.settings.tasks import TaskSettings

MODEL = "teacher"
MIN_EXAMPLES = 3  # of an answer, for the stand-in to learn it
RIDGE = 1.5  # penalty of the least squares; each text has a squared length of 2
DAY_S = 86_400.0

Learned = Callable[[Sequence[Row]], list[tuple[str, float]]]  # rows → (answer, confidence)


def exchanges(rows: Sequence[LogRow], order: Sequence[int]) -> list[LoggedExchange]:
    """The log as the store would have it, asked in this order."""
    return [
        LoggedExchange(
            trace_id=f"{place:08d}",
            kind="answer",
            asked_at=at * DAY_S,
            answered_at=at * DAY_S,
            request=LoggedRequest(messages=rows[place].messages, params={}, tools=None),
            fingerprint=fingerprint({"messages": rows[place].messages, "model": MODEL}),
            input_hash=input_hash(rows[place].messages),
            model=MODEL,
            choices=[{"role": "assistant", "content": rows[place].answer}],
            served_by="teacher",
            status_code=200,
            outcome="complete",
            finish_reasons=["stop"],
            confidence=None,
        )
        for at, place in enumerate(order)
    ]


def by_groups(log: Sequence[LoggedExchange], settings: TaskSettings) -> Selection:
    """The rows as the product chooses and splits them."""
    return choose_rows(log, settings.split)


def by_rows(log: Sequence[LoggedExchange], settings: TaskSettings) -> Selection:
    """Each input by itself, whatever it resembles."""
    inputs: defaultdict[str, list[LoggedExchange]] = defaultdict(list)
    for exchange in log:
        inputs[exchange.input_hash].append(exchange)
    rows = [row for same in inputs.values() for row in choose_rows(same, settings.split).rows]
    began = {name: min(e.asked_at for e in same) for name, same in inputs.items()}
    splits = split_groups(
        [
            SplitGroup(name=row.input_hash, began=began[row.input_hash], can_judge=True)
            for row in rows
        ],
        settings.split,
    )
    return Selection(
        [replace(row, split=splits.by_name[row.input_hash], group=None) for row in rows]
    )


def without_copies(alone: Selection, grouped: Selection) -> Selection:
    """The rows by themselves, but for the judged ones of a group that a learned one is in.

    `grouped`: the same rows with their groups.
    """
    group_of = {row.trace_id: row.group for row in grouped.rows}
    learned = {group_of.get(row.trace_id) for row in alone.train} - {None}
    judged = (*alone.calibration, *alone.heldout)
    apart = [row for row in judged if group_of.get(row.trace_id) not in learned]
    return Selection([*alone.train, *apart])


def learn(rows: Sequence[Row]) -> Learned:
    """The stand-in student: least squares of the answers on the texts, solved exactly.

    An iterative solver would leave it to chance which of two alike students is better. The
    confidence is the likeliest answer's lead over the next one.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - slow to import
    from sklearn.pipeline import make_union  # noqa: PLC0415

    given = Counter(normal_answer(row.target) for row in rows)
    known = [row for row in rows if given[normal_answer(row.target)] >= MIN_EXAMPLES] or rows
    texts = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=2, sublinear_tf=True),
    )
    features = texts.fit_transform([_text(row) for row in known])
    answers = {normal_answer(row.target): row.target for row in known}
    names = sorted(answers)
    wanted = np.array([[normal_answer(row.target) == name for name in names] for row in known])
    kernel = (features @ features.T).toarray()
    kernel[np.diag_indices_from(kernel)] += RIDGE
    weights = features.T @ np.linalg.solve(kernel, wanted.astype(np.float64))

    def ask(asked: Sequence[Row]) -> list[tuple[str, float]]:
        scores = texts.transform([_text(row) for row in asked]) @ weights
        best = scores.argmax(axis=1)
        lead = np.diff(np.sort(scores, axis=1)[:, -2:])[:, -1] if len(names) > 1 else scores[:, 0]
        return [
            (answers[names[place]], float(ahead)) for place, ahead in zip(best, lead, strict=True)
        ]

    return ask


def _text(row: Row) -> str:
    return "\n".join(text_of(m.get("content")) for m in row.messages if m.get("role") != "system")


def certificates(
    selection: Selection, student: Learned, settings: TaskSettings, thresholds: Sequence[float]
) -> list[Certificate]:
    """What the gate makes of a student on these rows, at each threshold."""
    answers = answers_of(selection.seen)
    scorer = choose_scorer(answers, settings.evaluate)
    most = settings.evaluate.max_rows
    evaluated = {
        split: evaluated_by(some_rows(rows, most), student, scorer.name)
        for split, rows in (("calibration", selection.calibration), ("heldout", selection.heldout))
    }
    results = []
    for threshold in thresholds:
        gate = settings.gate.model_copy(update={"threshold": threshold})
        heldout = evaluated["heldout"]
        cutoffs = choose_cutoffs(
            evaluated["calibration"],
            gate,
            heldout=len(GroupedRows(heldout)),
            alpha=attempt_alpha(gate, 1),
            output=scorer.output,
        )
        results.append(
            certify(
                heldout,
                cutoffs,
                gate,
                attempt=1,
                output=scorer.output,
                task="bench",
                run_id="run",
                scorer=scorer.name,
                fingerprints=selection.fingerprints,
                now=0.0,
                fields=answers.fields,
            )
        )
    return results


def evaluated_by(rows: Sequence[Row], student: Learned, scorer: Any) -> list[Evaluation]:
    evaluations = []
    for row, (answer, confidence) in zip(rows, student(rows), strict=True):
        points = score(scorer, row.target, answer)
        evaluations.append(
            Evaluation(
                run_id="run",
                input_hash=row.input_hash,
                split=row.split,
                scorer=scorer,
                score=points,
                agrees=points >= 1,
                teacher_output=row.target,
                student_output=answer,
                confidence=confidence,
                latency_ms=1.0,
                fingerprint=row.fingerprint,
                group=row.group,
            )
        )
    return evaluations


WAYS = ("groups", "rows", "no_copies")


def compare(
    rows: Sequence[LogRow], thresholds: Sequence[float], splits: int, settings: TaskSettings
) -> list[JsonObject]:
    """For each threshold the certified coverage of each way, and what groups cost."""
    found: dict[str, list[list[Certificate]]] = {way: [] for way in WAYS}
    units: Counter[str] = Counter()
    for number in range(splits):
        order = np.random.default_rng([20241203, number]).permutation(len(rows))
        log = exchanges(rows, order.tolist())
        grouped, alone = by_groups(log, settings), by_rows(log, settings)
        of_groups, of_rows = learn(grouped.train), learn(alone.train)
        for way, selection, student in (
            ("groups", grouped, of_groups),
            ("rows", alone, of_rows),
            ("no_copies", without_copies(alone, grouped), of_rows),
        ):
            units[way] += sum(selection.groups.values())
            found[way].append(certificates(selection, student, settings, thresholds))
    results = []
    for place, threshold in enumerate(thresholds):
        result: JsonObject = {"threshold": threshold}
        covered = {}
        for way in WAYS:
            given = [each[place] for each in found[way]]
            covered[way] = np.array([c.coverage if c.passed else 0.0 for c in given])
            result[way] = {
                "units": round(units[way] / splits),
                "coverage": float(covered[way].mean()),
                "passed": float(np.mean([c.passed for c in given])),
                "agreement": float(np.mean([c.agreement_all for c in given])),
            }
        for way in WAYS[1:]:
            result[f"cost_to_{way}"] = _mean(covered[way] - covered["groups"])
        results.append(result)
    return results


def _mean(values: Any) -> JsonObject:
    """The mean of paired differences, with its 95 % interval by Student's t."""
    mean, n = float(values.mean()), len(values)
    wide = 0.0
    if n > 1:
        wide = float(values.std(ddof=1) / np.sqrt(n) * stats.t.ppf(0.975, n - 1))
    return {"mean": mean, "low": mean - wide, "high": mean + wide}


def main() -> None:
    """Prints a line for each log and threshold, or the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("logs", nargs="+", type=Path, help="as `understudy backtest` reads them")
    parser.add_argument("--rows", type=int, help="of each log, from its beginning")
    parser.add_argument("--splits", type=int, default=8, help="random orders of a log")
    parser.add_argument("--threshold", type=float, nargs="+", default=[0.9, 0.95])
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    arguments = parser.parse_args()
    results = {
        log.stem: compare(
            read_rows(log)[: arguments.rows], arguments.threshold, arguments.splits, TaskSettings()
        )
        for log in arguments.logs
    }
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    shown = Table()
    for name in ("log", "threshold", *WAYS, "cost to rows", "cost to no copies"):
        shown.add_column(name, justify="left" if name == "log" else "right")
    for log, lines in results.items():
        for line in lines:
            shown.add_row(
                log,
                f"{line['threshold']:g}",
                *(
                    f"{line[way]['coverage']:.3f}, {line[way]['passed']:.2f} of "
                    f"{line[way]['units']} at {line[way]['agreement']:.4f}"
                    for way in WAYS
                ),
                *(
                    "{mean:.3f} ({low:.3f} to {high:.3f})".format(**line[f"cost_to_{way}"])
                    for way in WAYS[1:]
                ),
            )
    Console(width=None if Console().is_terminal else 200).print(shown)


if __name__ == "__main__":
    main()
