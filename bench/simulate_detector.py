"""The change detector in numbers: false alarms, and observations until a change is detected.

    .venv/bin/python -m bench.simulate_detector [--quick] [--json]

The bets and thresholds are those of distill.monitor.detector; the same statistics run here for
thousands of streams at a time (tests/distill/monitor/test_detector.py holds the two against each
other). Seeds are fixed.

Delays are counted from the change on, of streams without an alarm before it: 300 observations under
the old chance, then the new one. Beside each is the delay of the best possible detector, which
knows both chances in advance. That is CUSUM for exactly this change with exactly this run length:
no detector has a smaller mean delay in its worst case (Lorden 1971, Moustakides 1986). It demotes
good students more often than ours where the change is large (`best_false`). `quiet_median` is what
it takes with its threshold raised until its false alarms are as rare as ours.

Lorden, "Procedures for reacting to a change in distribution", Annals of Mathematical Statistics 42
(1971), https://doi.org/10.1214/aoms/1177693055
Moustakides, "Optimal stopping times for detecting changes in distributions", Annals of Statistics
14 (1986), https://doi.org/10.1214/aos/1176350164
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from scipy import stats

from distill.monitor.detector import Bet, calibrate, worst_case_delay
from store.jsontext import JsonObject
from store.settings.tasks import TaskSettings

SEED = 20240611
STREAMS = 20000
AUDITS = 3000
BEFORE = 300  # observations under the old chance
NEVER = 10**9
GOOD = 0.6  # of the tolerated rate: a student at 0.97 under a threshold of 0.95
REFERENCES = {(0.02, 0.2): 38, (0.02, 0.1): 173}  # medians, tolerated 0.05, run length 5000

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


class Streams(Protocol):
    """Many streams with a detector each."""

    def update(self, bad: Bools) -> Bools:
        """Adds an observation to each stream. Returns which of them raise an alarm."""

    def keep(self, which: Bools) -> None:
        """Goes on with these streams alone."""


class Shipped:
    """The detector that ships, for many streams at a time."""

    def __init__(self, count: int, tolerated: float, bets: Sequence[Bet]) -> None:
        self._if_good = np.array([[(1 - b.alternative) / (1 - tolerated)] for b in bets])
        self._if_bad = np.array([[b.alternative / tolerated] for b in bets])
        self._thresholds = np.array([[b.threshold] for b in bets])
        self._statistics = np.zeros((len(bets), count))

    def update(self, bad: Bools) -> Bools:
        self._statistics = (1 + self._statistics) * np.where(bad, self._if_bad, self._if_good)
        return np.asarray((self._statistics >= self._thresholds).any(axis=0))

    def keep(self, which: Bools) -> None:
        self._statistics = self._statistics[:, which]


class Cusum:
    """The best detector of one change, for many streams at a time."""

    def __init__(self, count: int, old: float, new: float, threshold: float) -> None:
        self._if_good, self._if_bad = math.log((1 - new) / (1 - old)), math.log(new / old)
        self._threshold = threshold
        self.statistics = np.zeros(count)

    def update(self, bad: Bools) -> Bools:
        step = np.where(bad, self._if_bad, self._if_good)
        self.statistics = np.maximum(self.statistics, 0) + step
        return np.asarray(self.statistics >= self._threshold)

    def keep(self, which: Bools) -> None:
        self.statistics = self.statistics[which]


def alarms(
    streams: Streams, count: int, rate: float, rng: np.random.Generator, most: int = NEVER
) -> Ints:
    """For each stream, after how many observations its first alarm comes; NEVER if after `most`."""
    first_alarms = np.full(count, NEVER)
    silent = np.arange(count)
    for n in range(1, most + 1):
        alarmed = streams.update(rng.random(silent.size) < rate)
        if alarmed.any():
            first_alarms[silent[alarmed]] = n
            silent = silent[~alarmed]
            streams.keep(~alarmed)
            if not silent.size:
                break
    return first_alarms


def delays(streams: Streams, count: int, old: float, new: float, seed: int) -> Ints:
    """Observations from a change to the alarm, of each stream without an alarm before."""
    rng = np.random.default_rng(seed)
    silent = alarms(streams, count, old, rng, BEFORE) == NEVER
    return alarms(streams, int(silent.sum()), new, rng)


def cusum_threshold(tolerated: float, new: float, run_length: float, cells: int = 1000) -> float:
    """The threshold at which CUSUM's mean run length is this: its Markov chain on a grid."""
    if_good, if_bad = math.log((1 - new) / (1 - tolerated)), math.log(new / tolerated)

    def run(threshold: float) -> float:
        states = np.linspace(0, threshold, cells, endpoint=False)
        width, moves, rows = threshold / cells, np.eye(cells), np.arange(cells)
        for step, chance in ((if_good, 1 - tolerated), (if_bad, tolerated)):
            place = np.maximum(states + step, 0) / width
            low = place.astype(int)
            for at, part in ((low, low + 1 - place), (low + 1, place - low)):
                inside = at < cells
                np.subtract.at(moves, (rows[inside], at[inside]), (chance * part)[inside])
        return float(np.linalg.solve(moves, np.ones(cells))[0])

    low, high = 0.1, 2 * math.log(run_length)
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if run(middle) < run_length else (low, middle)
    return high


@dataclass(frozen=True, slots=True)
class Change:
    """A stream's chance of a bad observation, before and after."""

    old: float
    new: float


def _peaks(tolerated: float, new: float, good: float, count: int) -> Floats:
    """How high CUSUM comes within AUDITS observations of a good student, stream by stream."""
    rng, streams = np.random.default_rng(SEED + 2), Cusum(count, tolerated, new, math.inf)
    peaks = np.zeros(count)
    for _ in range(AUDITS):
        streams.update(rng.random(count) < good)
        np.maximum(peaks, streams.statistics, out=peaks)
    return peaks


def _delay(
    change: Change, tolerated: float, run_length: float, count: int, quiet: float | None = None
) -> JsonObject:
    """`quiet`: our share of good students demoted, at a true rate of GOOD times the tolerated."""
    bets = calibrate(tolerated, run_length)
    ours = delays(Shipped(count, tolerated, bets), count, change.old, change.new, SEED + 1)
    row = {
        "tolerated": tolerated,
        "run_length": run_length,
        "from": change.old,
        "to": change.new,
        "median": float(np.median(ours)),
        "mean": round(float(ours.mean()), 1),
        "worst_in_20": float(np.quantile(ours, 0.95, method="higher")),
        "reference_median": REFERENCES.get((change.old, change.new)),
        "best_median": None,
        "best_mean": None,
        "best_false": None,
        "quiet_median": None,
    }
    if change.new < 1:

        def best(threshold: float) -> Ints:
            streams = Cusum(count, tolerated, change.new, threshold)
            return delays(streams, count, change.old, change.new, SEED + 1)

        threshold = cusum_threshold(tolerated, change.new, run_length)
        first_alarms = best(threshold)
        row |= {
            "best_median": float(np.median(first_alarms)),
            "best_mean": round(float(first_alarms.mean()), 1),
        }
        if quiet is not None:
            peaks = _peaks(tolerated, change.new, GOOD * tolerated, count)
            row["best_false"] = round(float((peaks >= threshold).mean()), 4)
            quieter = np.nextafter(np.quantile(peaks, 1 - quiet), math.inf)
            row["quiet_median"] = float(np.median(best(max(threshold, float(quieter)))))
    return row


def _false_demotions(tolerated: float, run_length: float, true: float, count: int) -> JsonObject:
    streams = Shipped(count, tolerated, calibrate(tolerated, run_length))
    first_alarms = alarms(streams, count, true, np.random.default_rng(SEED + 2), AUDITS)
    wrong = int((first_alarms < NEVER).sum())
    return {
        "tolerated": tolerated,
        "run_length": run_length,
        "true": true,
        "observations": AUDITS,
        "streams": count,
        "share": wrong / count,
        "at_most": round(float(stats.beta.ppf(0.95, wrong + 1, count - wrong)), 5),
    }


def _run_length(tolerated: float, run_length: float, count: int) -> JsonObject:
    bets = calibrate(tolerated, run_length)
    first_alarms = alarms(
        Shipped(count, tolerated, bets), count, tolerated, np.random.default_rng(SEED + 3)
    )
    return {
        "tolerated": tolerated,
        "run_length": run_length,
        "proven": round(1 / sum(bet.hazard for bet in bets)),
        "streams": count,
        "mean": round(float(first_alarms.mean())),
        "standard_error": round(float(first_alarms.std() / math.sqrt(count))),
        "all_bad": worst_case_delay(tolerated, run_length),
    }


def report(*, quick: bool) -> JsonObject:
    """Every table of the detector, by name. `quick`: a tenth of the streams, but where a share of
    less than 1 % is counted.
    """
    settings = TaskSettings()
    tolerated, run_length = round(1 - settings.gate.threshold, 6), float(settings.audit.run_length)
    faults, requests = settings.audit.fault_rate, run_length / settings.audit.first_share
    streams, runs = (STREAMS // 10, 200) if quick else (STREAMS, 2000)
    rates = (0.01, 0.02, tolerated, 0.1, 0.2, 0.45)
    false = [
        _false_demotions(tolerated, run_length, true, STREAMS)
        for true in (GOOD * tolerated, 0.02, 0.01)
    ]
    return {
        "run_length": [_run_length(rate, run_length, runs) for rate in rates],
        "false_demotions": false,
        "delays": [
            _delay(Change(0.02, new), tolerated, run_length, streams, false[0]["share"])
            for new in (0.2, 0.1, 0.08, 0.5, 1.0)
        ],
        "faults": [
            _delay(Change(0.005, new), faults, requests, streams) for new in (0.05, 0.2, 1.0)
        ],
    }


TITLES = {
    "run_length": "Mean observations until a false alarm, with as many bad ones as tolerated",
    "false_demotions": "Good students demoted all the same",
    "delays": "Audits until a demotion; best: CUSUM that knows the change in advance",
    "faults": "Requests until a demotion for faults",
}


def table(results: JsonObject) -> RenderableType:
    """The report as tables. Values that all rows share are in the title."""
    parts: list[RenderableType] = []
    for name, title in TITLES.items():
        rows = results[name]
        columns = {column: [row[column] for row in rows] for column in rows[0]}
        same = {c: values[0] for c, values in columns.items() if len(set(values)) == 1}
        shared = ", ".join(f"{_words(c)} {v:.6g}" for c, v in same.items() if v is not None)
        shown = Table()
        for column in columns:
            if column not in same:
                shown.add_column(_words(column), justify="right")
        for row in rows:
            cells = (row[column] for column in columns if column not in same)
            shown.add_row(*("" if value is None else f"{value:.6g}" for value in cells))
        parts += [f"{title}\n[dim]{shared}[/dim]", shown]
    return Group(*parts)


def _words(name: str) -> str:
    return name.replace("_", " ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the streams")
    parser.add_argument("--json", action="store_true", help="the numbers as JSON")
    arguments = parser.parse_args()
    measured = report(quick=arguments.quick)
    if arguments.json:
        print(json.dumps(measured, indent=1))
    else:
        Console().print(table(measured))
