"""Detects that bad observations have become more frequent than is tolerated. No I/O.

Each observation is good or bad. A change detector monitors the stream of them without end, and
raises an alarm when the chance of a bad one has grown. It consists of a few Shiryaev-Roberts
statistics, each of which bets on one chance q of a bad observation against the tolerated chance p:

    R = (1 + R) * (q / p             after a bad observation
                   (1 - q) / (1 - p) after a good one),   R = 0 at the beginning

R sums, over all moments at which the change may have happened, how much likelier the observations
since then are under q than under p: an *e-detector*. The alarm is raised when one of the statistics
reaches its threshold. The alternatives q have a fixed multiple of the odds of p: ODDS, from a
complete failure to a mild change.

The guarantee: **as long as each observation is bad with a chance of at most p, whatever came before
it, the mean number of observations until the first alarm is at least the run length.** This holds
for audits sampled at random whose failures are independent, and also for dependent ones whose
chance of failure, given the past, never exceeds p. The change may come at any time.

How the thresholds keep it. The threshold of the theory, the run length, is far too cautious, since
R jumps over it. Each statistic gets a part of the hazard 1 / run_length (SHARES), and the lowest
threshold that needs no more than that:

- The state of one statistic is rounded up to a grid, which can only bring its alarm forward. A
  function v over the grid that falls with the state, and that one observation shrinks to no less
  than (1 - h) v everywhere, proves P(no alarm in n observations) ≥ (1 - h)**n from the state 0.
  Some hundred steps of power iteration give such a v; h is proven by it, however good v is.
- One more bad observation never lowers a statistic. So the events "no alarm in n observations" of
  all statistics are positively associated (Harris 1960): together they are at least as likely as if
  they were independent, and the hazards at most add up.
- Fewer bad observations only lower R, so p itself is the worst case.

If every observation is bad from now on, the alarm comes after at most this many observations,
whatever came before (`worst_case_delay`, run length 5,000):

    tolerated     0.001  0.01  0.02  0.05  0.1  0.2  0.3  0.45
    observations      3     4     4     5    6    8   11    15

Delays for milder changes, and the distance from the best possible, are in
bench/simulate_detector.py.

Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change detection",
New England Journal of Statistics in Data Science 2 (2024), https://arxiv.org/abs/2203.03532
Pollak, "Average run lengths of an optimal method of detecting a change in distribution", Annals of
Statistics 15 (1987), https://doi.org/10.1214/aos/1176350373 (how far R jumps over its threshold)
Harris, "A lower bound for the critical probability in a certain percolation process", Mathematical
Proceedings of the Cambridge Philosophical Society 56 (1960), https://doi.org/10.1017/S0305004100034241
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from pydantic import Field

ODDS = (80.0, 4.75, 2.3)  # of a bad observation, as multiples of the tolerated odds: one a bet
SHARES = (0.02, 0.40, 1.0)  # of the hazard; the last bet gets all that the others leave
MIN_RUN_LENGTH = 100.0
MIN_CHANGE = 0.004  # smallest change that is bet on: below, a proof would need a finer grid
# good observations alone bring a statistic to run_length / this at most, far below its threshold
GOOD_RUN_MARGIN = 20.0
MAX_TIMES = 20_000  # newest observations whose times are kept

PROOF_CELLS = 16384  # of the grid on which a threshold is proven
SEARCH_CELLS = 2048  # of the grid on which it is searched for
MIN_CELLS_PER_STEP = 4.0  # that a bad observation has to move a statistic by
SEARCH_TOLERANCE = 0.01  # relative error of the search
SEARCH_TARGET = 0.96  # of the hazard: the proof's grid shows more of it than there is
MAX_STEP = 1.5  # factor by which a threshold without a proof is raised at once
MAX_THRESHOLD_FACTOR = 20.0  # times the theory's threshold: beyond, the grid is too coarse

_Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorState:
    """A change detector: it demotes the student when its level reaches 1."""

    n: int  # observations since the promotion
    bad: int
    tolerated: Annotated[float, Field(description="share of bad ones that does not demote")]
    level: Annotated[float, Field(description="its suspicion that there are more now, 0 to 1")]
    run_length: Annotated[float, Field(description="one false demotion in so many, at most")]
    # for the decision of the rollout; the status does not show them
    alarm: Annotated[bool, Field(exclude=True)] = False
    # of the last observations, those after the likeliest moment of a change
    suspects: Annotated[int, Field(exclude=True)] = 0
    suspects_bad: Annotated[int, Field(exclude=True)] = 0
    since: Annotated[float | None, Field(exclude=True)] = None  # time of the first suspect


@dataclass(frozen=True, slots=True)
class Bet:
    """One Shiryaev-Roberts statistic: what it bets on, and when it raises the alarm."""

    alternative: float  # the chance of a bad observation that it bets on
    threshold: float
    hazard: float  # proven: chance of its alarm per observation, at the tolerated chance


class ChangeDetector:
    """Raises an alarm when more observations are bad than is tolerated.

    `tolerated`: chance of a bad observation, above 0 and below 1. `run_length`: mean number of
    observations between two false alarms, at least MIN_RUN_LENGTH. ValueError otherwise.
    """

    def __init__(self, tolerated: float, run_length: float) -> None:
        self.tolerated, self.run_length = tolerated, run_length
        self.n = 0  # observations so far
        self.bad = 0  # of those
        self.alarmed = False  # from the first alarm on
        self._statistics = [
            _BetStatistic(bet, tolerated) for bet in calibrate(tolerated, run_length)
        ]
        self._times: deque[float | None] = deque(maxlen=MAX_TIMES)

    def update(self, bad: bool, at: float | None = None) -> bool:
        """Adds an observation, of a request that was made at `at` (seconds since the epoch).

        Returns whether there is an alarm; it stays True from the first alarm on.
        """
        self.n += 1
        self.bad += bad
        self._times.append(at)
        for statistic in self._statistics:
            statistic.update(bad)
            self.alarmed = self.alarmed or statistic.value >= statistic.bet.threshold
        return self.alarmed

    @property
    def level(self) -> float:
        """The suspicion: 0 for none, 1 at an alarm and after it.

        Of the statistic that is nearest to its threshold: how far its logarithm has come from
        where good observations alone leave it to the threshold.
        """
        return 1.0 if self.alarmed else max(s.level for s in self._statistics)

    @property
    def suspects(self) -> int:
        """How many of the last observations come after the likeliest moment of a change.

        Of the statistic that is nearest to its threshold; 0 when none points to a change. At an
        alarm it is at least 1.
        """
        return self._nearest.suspects

    @property
    def suspects_bad(self) -> int:
        """How many of the suspects are bad."""
        return self._nearest.suspects_bad

    def state(self) -> DetectorState:
        """Its numbers at this moment."""
        nearest = self._nearest
        with_times = min(nearest.suspects, len(self._times))
        return DetectorState(
            n=self.n,
            bad=self.bad,
            tolerated=self.tolerated,
            level=self.level,
            run_length=self.run_length,
            alarm=self.alarmed,
            suspects=nearest.suspects,
            suspects_bad=nearest.suspects_bad,
            since=self._times[-with_times] if with_times else None,
        )

    @property
    def _nearest(self) -> _BetStatistic:
        return max(self._statistics, key=lambda statistic: statistic.level)


class _BetStatistic:
    """The running statistic of one bet, and the likeliest moment of the change it bets on."""

    def __init__(self, bet: Bet, tolerated: float) -> None:
        self.bet = bet
        self.value = 0.0
        self.suspects = self.suspects_bad = 0
        self._factors = _factors(tolerated, bet.alternative)
        self._logs = [math.log(factor) for factor in self._factors]
        self._log_floor = math.log1p(_floor(self._factors[0]))
        self._log_range = math.log1p(bet.threshold) - self._log_floor
        self._cusum = 0.0  # log likelihood ratio of the suspects: the CUSUM statistic

    def update(self, bad: bool) -> None:
        self.value = (1 + self.value) * self._factors[bad]
        self._cusum += self._logs[bad]
        self.suspects += 1
        self.suspects_bad += bad
        if self._cusum <= 0:
            self._cusum, self.suspects, self.suspects_bad = 0.0, 0, 0

    @property
    def level(self) -> float:
        """Not limited to 1: above, the statistic is past its threshold."""
        return max(0.0, (math.log1p(self.value) - self._log_floor) / self._log_range)


def worst_case_delay(tolerated: float, run_length: float) -> int:
    """After how many observations the alarm comes at the latest, if all are bad from now on.

    Few, unless most observations are tolerated to be bad. Good ones before only bring it forward.
    """
    detector = ChangeDetector(tolerated, run_length)
    while not detector.update(True) and detector.n < run_length:
        pass
    return detector.n


# ---- the thresholds ----------------------------------------------------------------------------


@lru_cache(maxsize=128)
def calibrate(tolerated: float, run_length: float) -> tuple[Bet, ...]:
    """The bets, whose proven hazards add up to at most 1 / run_length. Takes some 0.1 s."""
    if not 0 < tolerated < 1:
        raise ValueError(f"{tolerated:g} cannot be tolerated: it must lie above 0 and below 1")
    if not run_length >= MIN_RUN_LENGTH:
        raise ValueError(
            f"a run length of {run_length:g} is too short: at least {MIN_RUN_LENGTH:g}"
        )
    shares: dict[float, float] = {}  # equal alternatives get the share of the last one
    for odds, share in zip(ODDS, SHARES, strict=True):
        shares[_alternative(tolerated, odds, run_length)] = share
    bets: list[Bet] = []
    left = 1 / run_length
    for alternative, share in shares.items():
        bets.append(_bet(tolerated, alternative, min(share / run_length, left)))
        left -= bets[-1].hazard
    return tuple(bets)


def _alternative(tolerated: float, odds: float, run_length: float) -> float:
    """The chance with `odds` times the tolerated odds, and far enough from the tolerated chance.

    Good observations alone bring R to (1 - q) / (q - p). Were that near the threshold, they would
    raise the alarm; so it is kept at or below run_length / GOOD_RUN_MARGIN.
    """
    more = odds * tolerated / (1 - tolerated)
    min_change = max(GOOD_RUN_MARGIN / run_length, MIN_CHANGE)
    return max(more / (1 + more), (tolerated + min_change) / (1 + min_change))


def _bet(tolerated: float, alternative: float, allowed: float) -> Bet:
    """The bet on an alternative, with the threshold for which at most `allowed` hazard is proven.

    Where nothing can be proven, because nearly everything is tolerated, the bet never raises an
    alarm.
    """

    def hazard(threshold: float, *, proven: bool) -> float:
        return _hazard(tolerated, alternative, threshold, proven=proven)

    if_good, if_bad = _factors(tolerated, alternative)
    if math.log(if_bad) * PROOF_CELLS < MIN_CELLS_PER_STEP * math.log(1 / allowed):
        return Bet(alternative, math.inf, 0.0)
    lowest = 2 * _floor(if_good) + 1
    threshold = _search(
        lambda threshold: hazard(threshold, proven=False) / (SEARCH_TARGET * allowed),
        lowest,
        4 / allowed,
    )
    step = SEARCH_TOLERANCE
    while (proven := hazard(threshold, proven=True)) > allowed:
        threshold *= min(max(proven / allowed, 1 + step), MAX_STEP)
        step *= 2
        if threshold > MAX_THRESHOLD_FACTOR / allowed:
            return Bet(alternative, math.inf, 0.0)
    return Bet(alternative, threshold, proven)


def _search(excess: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function, roughly 1 / x, reaches 1: the upper end of a narrow interval."""
    guess = math.sqrt(low * high)
    while high > low * (1 + SEARCH_TOLERANCE):
        ratio = excess(guess)
        low, high = (guess, high) if ratio > 1 else (low, guess)
        # a step as if it were 1 / x, and a little further, so that the root is bracketed
        half = SEARCH_TOLERANCE / 2
        aim = guess * ratio * (1 + half if ratio > 1 else 1 - half)
        guess = aim if low * (1 + half / 2) < aim < high else math.sqrt(low * high)
    return high


def _hazard(tolerated: float, alternative: float, threshold: float, *, proven: bool) -> float:
    """The chance per observation of an alarm, of a statistic that has raised none so far.

    With `proven` an upper bound, otherwise an estimate, both at the tolerated chance. The cells are
    equal steps of log(1 + R), and cell i stands for all states up to its upper end. From the
    chances v0 of surviving n/2 observations follow those of surviving n, v1 = Q**(n/2) v0, and the
    sum v of all between. One step turns v into v - v0 + v1, so the hazard is at most the largest
    (v0 - v1) / v. Before that, n/2 observations remove the influence of the initial guess
    1 - R / threshold.
    """
    cells = PROOF_CELLS if proven else SEARCH_CELLS
    rounded = np.ceil if proven else np.rint
    width = math.log1p(threshold) / cells
    states = np.expm1(width * np.arange(cells))
    after = [
        np.minimum(rounded(np.log1p((1 + states) * factor) / width).astype(np.intp), cells)
        for factor in _factors(tolerated, alternative)
    ]
    survival = np.append(1 - states / threshold, 0.0)  # its last entry is the alarm

    def observe(times: int) -> _Floats:
        total = np.zeros(cells)
        for _ in range(times):
            total += survival[:-1]
            survival[:-1] = (1 - tolerated) * survival[after[0]] + tolerated * survival[after[1]]
        return total

    half = min(max(int(32 / (alternative - tolerated)), 64), 1024)
    observe(half)
    before = survival[:-1].copy()
    total = observe(half)
    if not proven:
        return float((before[0] - survival[0]) / total[0])
    if not total.min() > 0:
        return 1.0
    return float(((before - survival[:-1]) / total).max())


def _factors(tolerated: float, alternative: float) -> tuple[float, float]:
    """The factors of 1 + R after a good and after a bad observation."""
    return (1 - alternative) / (1 - tolerated), alternative / tolerated


def _floor(if_good: float) -> float:
    """The value of R that good observations alone lead to."""
    return if_good / (1 - if_good)
