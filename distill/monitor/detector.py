"""Notices that something goes wrong more often than is tolerated. Pure.

Each observation is good or bad. A change detector watches a stream of them for ever, and cries when
the chance of a bad one has grown. It is made of a few Shiryaev-Roberts statistics, each of which
bets on one chance q of a bad observation against the tolerated chance p:

    R = (1 + R) * (q / p             after a bad observation
                   (1 - q) / (1 - p) after a good one),   R = 0 at the beginning

R adds up, over all moments at which the change may have happened, how much likelier the
observations since then are under q than under p: an *e-detector*. The alarm is raised when one of
the statistics reaches its threshold. The alternatives q have so many times the odds of p: ODDS,
from a failure of everything to a mild change.

What is guaranteed: **as long as each observation is bad with a chance of at most p, whatever came
before it, the mean number of observations until the first alarm is at least the run length.** That
holds for audits drawn at random whose failures are independent, and also for dependent ones whose
chance of failure, given the past, never exceeds p. The change may come at any time.

How the thresholds keep it. The theory's own threshold, the run length, is far too cautious, as R
jumps over it. Each statistic gets a part of the hazard 1 / run_length (SHARES), and the lowest
threshold that needs no more than that:

- The state of one statistic is rounded up to a grid, which lets it alarm no later. A function v
  over the grid that falls with the state, and that one observation shrinks to no less than
  (1 - h) v everywhere, proves P(no alarm in n observations) ≥ (1 - h)**n from the state 0. Such a v
  comes of some hundred steps of power iteration; whatever it is, h is proven by it.
- One more bad observation never silences a statistic. So the events "no alarm in n observations"
  of all of them are positively associated (Harris 1960): together they are at least as likely as if
  they were independent, and the hazards add up at most.
- Fewer bad ones only lower R, so p itself is the worst case.

Everything bad from now on is found out after at most so many observations, whatever came before
(`soonest`, run length 5,000):

    tolerated     0.001  0.01  0.02  0.05  0.1  0.2  0.3  0.45
    observations      3     4     4     5    6    8   11    15

What is reached besides, and how far from the best that can be, is in bench/simulate_detector.py.

Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change detection",
New England Journal of Statistics in Data Science 2 (2024), https://arxiv.org/abs/2203.03532
Pollak, "Average run lengths of an optimal method of detecting a change in distribution", Annals of
Statistics 15 (1987), https://doi.org/10.1214/aos/1176350373 (how far R jumps over its threshold)
Harris, "A lower bound for the critical probability in a certain percolation process", Mathematical
Proceedings of the Cambridge Philosophical Society 56 (1960), https://doi.org/10.1017/S0305004100034241
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

ODDS = (80.0, 4.75, 2.3)  # of a bad observation, against the tolerated odds: one alternative each
SHARES = (0.02, 0.40, 1.0)  # of the hazard; the last one has all that the others leave
MIN_RUN_LENGTH = 100.0  # run length
FAR = 20.0  # run_length / this many good observations do not bring a statistic to its threshold
MIN_CHANGE = 0.004  # change that is looked for: below, a proof would need a finer grid

CELLS = 16384  # of the grid on which a threshold is proven
ROUGH_CELLS = 2048  # of the one on which it is looked for
FINE = 4.0  # cells at least that a bad observation has to move a statistic by
CLOSE = 0.01  # relative error of that search
MARGIN = 0.96  # of the hazard is looked for: the proof's grid shows more of it than there is
MAX_STEP = 1.5  # by which a threshold without a proof is raised at once
HOPELESS = 20.0  # times the theory's threshold without a proof: the grid is too coarse for this bet

_Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Bet:
    """One Shiryaev-Roberts statistic: what it bets on, and when it cries."""

    alternative: float  # the chance of a bad observation that it bets on
    threshold: float
    hazard: float  # proven: chance of an alarm by it, an observation, at the tolerated chance


class ChangeDetector:
    """Cries when more observations are bad than is tolerated. State: a few numbers.

    `tolerated`: chance of a bad observation, above 0 and below 1. `run_length`: observations from
    one false alarm to the next, on average; at least MIN_RUN_LENGTH. ValueError otherwise.
    """

    def __init__(self, tolerated: float, run_length: float) -> None:
        self.n = 0  # observations so far
        self.bad = 0  # of those
        self.alarmed = False  # from the first alarm on
        self._watches = [_Watch(bet, tolerated) for bet in calibrate(tolerated, run_length)]

    def update(self, bad: bool) -> bool:
        """Takes an observation in. Returns whether there is an alarm, and from then on True."""
        self.n += 1
        self.bad += bad
        for watch in self._watches:
            watch.update(bad)
            self.alarmed = self.alarmed or watch.statistic >= watch.bet.threshold
        return self.alarmed

    @property
    def level(self) -> float:
        """The suspicion: 0 when there is none, 1 at an alarm and after it.

        The way that the logarithm of a statistic has gone from where good observations alone leave
        it to its threshold, of the statistic that has gone farthest.
        """
        return 1.0 if self.alarmed else max(watch.level for watch in self._watches)

    @property
    def suspects(self) -> int:
        """How many of the last observations come after the likeliest moment of a change.

        Of the statistic that is nearest to its threshold; 0 when none speaks for a change. At an
        alarm it is at least 1.
        """
        return self._nearest.suspects

    @property
    def suspects_bad(self) -> int:
        """How many of the suspects are bad."""
        return self._nearest.suspects_bad

    @property
    def _nearest(self) -> _Watch:
        return max(self._watches, key=lambda watch: watch.level)


class _Watch:
    """One bet's statistic as it runs, and the likeliest moment of the change that it bets on."""

    def __init__(self, bet: Bet, tolerated: float) -> None:
        self.bet = bet
        self.statistic = 0.0
        self.suspects = self.suspects_bad = 0
        self._factors = _factors(tolerated, bet.alternative)
        self._logs = [math.log(factor) for factor in self._factors]
        self._rest = math.log1p(_rest(self._factors[0]))
        self._way = math.log1p(bet.threshold) - self._rest
        self._since_change = 0.0  # log likelihood ratio of the suspects: the CUSUM statistic

    def update(self, bad: bool) -> None:
        self.statistic = (1 + self.statistic) * self._factors[bad]
        self._since_change += self._logs[bad]
        self.suspects += 1
        self.suspects_bad += bad
        if self._since_change <= 0:
            self._since_change, self.suspects, self.suspects_bad = 0.0, 0, 0

    @property
    def level(self) -> float:
        """Not limited to 1: beyond, it is past its threshold."""
        return max(0.0, (math.log1p(self.statistic) - self._rest) / self._way)


def soonest(tolerated: float, run_length: float) -> int:
    """After how many observations there is an alarm at the latest, if all are bad from now on.

    Few, unless most observations are tolerated to be bad. Good ones before only make it sooner.
    """
    detector = ChangeDetector(tolerated, run_length)
    while not detector.update(True) and detector.n < run_length:
        pass
    return detector.n


# ---- the thresholds ----------------------------------------------------------------------------


@lru_cache(maxsize=128)
def calibrate(tolerated: float, run_length: float) -> tuple[Bet, ...]:
    """The bets whose proven hazards add up to at most 1 / run_length. Some tenths of a second."""
    if not 0 < tolerated < 1:
        raise ValueError(f"{tolerated:g} is no chance that can be tolerated: above 0, below 1")
    if not run_length >= MIN_RUN_LENGTH:
        raise ValueError(
            f"a run length of {run_length:g} is too short: at least {MIN_RUN_LENGTH:g}"
        )
    shares: dict[float, float] = {}  # alternatives that fall together have the last one's share
    for odds, share in zip(ODDS, SHARES, strict=True):
        shares[_alternative(tolerated, odds, run_length)] = share
    bets: list[Bet] = []
    left = 1 / run_length
    for alternative, share in shares.items():
        bets.append(_bet(tolerated, alternative, min(share / run_length, left)))
        left -= bets[-1].hazard
    return tuple(bets)


def _alternative(tolerated: float, odds: float, run_length: float) -> float:
    """The chance with so many times the odds, and far enough for a change to show in time.

    Good observations alone bring R to (1 - q) / (q - p). Were that near the threshold, the alarm
    would come of nothing; so it is kept at or below run_length / FAR.
    """
    more = odds * tolerated / (1 - tolerated)
    least = max(FAR / run_length, MIN_CHANGE)
    return max(more / (1 + more), (tolerated + least) / (1 + least))


def _bet(tolerated: float, alternative: float, allowed: float) -> Bet:
    """The bet on an alternative with a threshold at which at most this hazard is proven.

    A bet that nothing can be proven of, as where nearly everything is tolerated, never cries.
    """

    def hazard(threshold: float, *, proven: bool) -> float:
        return _hazard(tolerated, alternative, threshold, proven=proven)

    if_good, if_bad = _factors(tolerated, alternative)
    if math.log(if_bad) * CELLS < FINE * math.log(1 / allowed):
        return Bet(alternative, math.inf, 0.0)
    least = 2 * _rest(if_good) + 1
    threshold = _search(
        lambda threshold: hazard(threshold, proven=False) / (MARGIN * allowed), least, 4 / allowed
    )
    step = CLOSE
    while (found := hazard(threshold, proven=True)) > allowed:
        threshold *= min(max(found / allowed, 1 + step), MAX_STEP)
        step *= 2
        if threshold > HOPELESS / allowed:
            return Bet(alternative, math.inf, 0.0)
    return Bet(alternative, threshold, found)


def _search(excess: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function, about like 1 / x, comes to 1: the upper end of a close interval."""
    guess = math.sqrt(low * high)
    while high > low * (1 + CLOSE):
        found = excess(guess)
        low, high = (guess, high) if found > 1 else (low, guess)
        # a step by the law of 1 / x, a little beyond where it leads to, to get it between the two
        aim = guess * found * (1 + CLOSE / 2 if found > 1 else 1 - CLOSE / 2)
        guess = aim if low * (1 + CLOSE / 4) < aim < high else math.sqrt(low * high)
    return high


def _hazard(tolerated: float, alternative: float, threshold: float, *, proven: bool) -> float:
    """The chance of an alarm, an observation, of a statistic that has not cried so far.

    With `proven` an upper bound of it, otherwise an estimate, both at the tolerated chance. The
    cells are equal steps of log(1 + R), and cell i stands for all states up to its upper end. From
    the chances v0 of surviving n/2 observations come those of surviving n, v1 = Q**(n/2) v0, and
    the sum v of all between. One step makes v - v0 + v1 of it, so the hazard is at most the largest
    (v0 - v1) / v. Before, n/2 observations wear the guess 1 - R / threshold off.
    """
    cells = CELLS if proven else ROUGH_CELLS
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
    """What a good and what a bad observation multiply 1 + R with."""
    return (1 - alternative) / (1 - tolerated), alternative / tolerated


def _rest(if_good: float) -> float:
    """Where good observations alone bring R to."""
    return if_good / (1 - if_good)
