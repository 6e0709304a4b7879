"""Live traffic in groups: wrong confirmations and false demotions, looked at after each comparison.

    .venv/bin/python -m bench.simulate_live [--rounds 400] [--json]

Conversations begin at random moments of four days and go on for a while, so that many are open at
once. Each draws its own probability of agreement from a beta density whose mean is the student's
agreement and whose spread is the intra-group correlation: at 0 all are alike, at 1 all comparisons
of a group agree or none does. The shipped counts and detectors run on them (distill.gate.tally,
distill.monitor.recount, distill.monitor.detector).

`confirmed`: a student just below the threshold is confirmed at any of the looks; `by_row`: the same
with each comparison as a group of its own, the former rule. `demoted`: a student exactly at the
threshold is demoted as hopeless at any of the looks. `alarms`: of its change detector, as a
multiple of what the run length allows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from distill.gate.bounds import log_e_values, upper_bound
from distill.monitor.detector import ChangeDetector
from distill.monitor.recount import Recount
from store.jsontext import JsonObject

SIZES = (1, 2, 5, 20, 50)
CORRELATIONS = (0.0, 0.2, 0.5, 1.0)
THRESHOLD, BELOW = 0.95, 0.949
ALPHA = 0.025  # of a first attempt
GROUPS = 300
DAYS = 4
TURN_S = 300.0  # mean seconds between two comparisons of one conversation
RUN_LENGTH = 5_000
AGAINST = 0.05  # error probability of the upper bound
TITLE = "Live groups: 0.025 may be confirmed, 0.05 demoted, 1 is the rate of alarms; simulated"
FEW = 60  # rounds of the detector, which is slow, and of the former rule, which fails at once


Bools = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Live:
    """The comparisons of one student in the order of time."""

    groups: Ints  # the group of each
    times: Floats  # seconds
    agrees: Bools
    turns: Ints  # which comparison of its group each is, from 0

    def __len__(self) -> int:
        return len(self.groups)


def traffic(rng: np.random.Generator, size: int, correlation: float, agreement: float) -> Live:
    """GROUPS conversations of so many comparisons each."""
    if correlation == 0:
        chances = np.full(GROUPS, agreement)
    elif correlation == 1:
        chances = (rng.random(GROUPS) < agreement).astype(np.float64)
    else:
        scale = 1 / correlation - 1
        chances = rng.beta(agreement * scale, (1 - agreement) * scale, GROUPS)
    begins = rng.uniform(0, DAYS * 86_400, GROUPS)
    times = begins[:, None] + np.cumsum(rng.exponential(TURN_S, (GROUPS, size)), axis=1)
    agrees = rng.random((GROUPS, size)) < chances[:, None]
    order = np.argsort(times, axis=None)
    return Live(order // size, times.ravel()[order], agrees.ravel()[order], order % size)


def looks(live: Live, *, by_row: bool = False) -> tuple[Ints, Floats, Floats]:
    """After each comparison: groups, and the sums that a lower and an upper bound get.

    As distill.gate.tally counts them; for all looks at once.
    """
    if by_row:
        agreed = np.cumsum(live.agrees).astype(np.float64)
        return np.arange(1, len(live) + 1), agreed, agreed
    first = live.turns == 0
    so_far = np.zeros((GROUPS, int(live.turns.max()) + 1))
    so_far[live.groups, live.turns] = live.agrees
    means = np.cumsum(so_far, axis=1) / np.arange(1, so_far.shape[1] + 1)
    changes = np.diff(means, axis=1, prepend=0.0)[live.groups, live.turns]
    mean_sum, first_sum = np.cumsum(changes), np.cumsum(live.agrees & first)
    return np.cumsum(first), np.minimum(mean_sum, first_sum), np.maximum(mean_sum, first_sum)


def confirmed(live: Live, *, by_row: bool = False) -> bool:
    """Whether the threshold is proven at any look."""
    groups, low, _ = looks(live, by_row=by_row)
    stakes = log_e_values(np.maximum(low, 0.0), groups.astype(np.float64), THRESHOLD)
    return bool(stakes.max() >= -np.log(ALPHA))


def hopeless(live: Live) -> bool:
    """Whether the agreement is proven to lie below the threshold at any look."""
    groups, _, high = looks(live)
    fewest = np.full(GROUPS + 1, np.inf)  # that agree, by the number of groups
    np.minimum.at(fewest, groups, np.maximum(high, 0.0))
    sizes = np.arange(GROUPS + 1)
    # nothing within one standard deviation is proven
    low = fewest < THRESHOLD * sizes - np.sqrt(THRESHOLD * (1 - THRESHOLD) * sizes)
    return any(
        upper_bound(float(fewest[n]), int(n), AGAINST) < THRESHOLD for n in np.flatnonzero(low)
    )


def alarms(live: Live) -> tuple[int, int]:
    """How often the detector of disagreement raises the alarm, and how many it counts."""
    detector, recount = ChangeDetector(1 - THRESHOLD, RUN_LENGTH), Recount()
    raised = counted = 0
    for group, at, agrees in zip(
        live.groups.tolist(), live.times.tolist(), live.agrees.tolist(), strict=True
    ):
        if recount.due(str(group), at):
            recount.count(str(group), at, bad=not agrees)
            counted += 1
            if detector.update(not agrees, at):
                raised += 1
                detector = ChangeDetector(1 - THRESHOLD, RUN_LENGTH)
    return raised, counted


def report(
    rounds: int,
    sizes: Sequence[int] = SIZES,
    correlations: Sequence[float] = CORRELATIONS,
) -> list[JsonObject]:
    """One row a size and correlation. Seeds are fixed."""
    rows: list[JsonObject] = []
    for size in sizes:
        for correlation in correlations:
            rng = np.random.default_rng([20241201, size, int(10 * correlation)])
            few = min(rounds, FEW)
            below = [traffic(rng, size, correlation, BELOW) for _ in range(rounds)]
            at_it = [traffic(rng, size, correlation, THRESHOLD) for _ in range(rounds)]
            wrong = sum(map(confirmed, below))
            raised, counted = np.sum([alarms(one) for one in at_it[:few]], axis=0)
            rows.append(
                {
                    "size": size,
                    "correlation": correlation,
                    "rounds": rounds,
                    "confirmed": wrong / rounds,
                    "confirmed_high": float(stats.binomtest(wrong, rounds).proportion_ci().high),
                    "by_row": sum(confirmed(one, by_row=True) for one in below[:few]) / few,
                    "demoted": sum(map(hopeless, at_it)) / rounds,
                    "counted": int(counted) // few,
                    "alarms": float(raised * RUN_LENGTH / max(counted, 1)),
                }
            )
    return rows


def main() -> None:
    """Prints the table, or the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=400, help="of each cell")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    arguments = parser.parse_args()
    rows = report(arguments.rounds)
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    shown = Table(title=TITLE)
    for name in rows[0]:
        shown.add_column(name, justify="right")
    for row in rows:
        shown.add_row(*(f"{value:.3g}" for value in row.values()))
    Console(width=None if Console().is_terminal else 120).print(shown)


if __name__ == "__main__":
    main()
