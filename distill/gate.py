"""The gate: whether a student may serve, and from which confidence on. Pure functions.

Two steps on two sets of rows, which never see each other:

1. `choose_cutoff` looks at the calibration rows alone, and picks the confidence from which on the
   student answers by itself: as low as leaves a good chance of step 2.
2. `certify` looks at the held-out rows at or above that cutoff alone. Their agreement's exact lower
   bound has to reach the threshold.

The cutoff is fixed before a held-out row is looked at, so the bound holds whatever way it was
chosen: a student whose served part agrees less than the threshold passes with a probability of at
most 1 - confidence. Only `lower_bound` and its mirror `_most_missed` know which bound it is.

Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
binomial", Biometrika 26 (1934), https://doi.org/10.1093/biomet/26.4.404
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import betaln

from store.models import ScorerName
from store.task_settings import GateSettings
from store.verdicts import Certificate, Evaluation

METHOD = "clopper-pearson"
LIKELY = 0.9  # chance of being certified that a cutoff should have
PRIOR = 0.5  # Jeffreys' prior for an agreement that is estimated from few rows

_Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Cutoff:
    """From which confidence on a student would serve, as the calibration rows suggest."""

    value: float | None  # lowest token log-probability served; None: everything is served
    coverage: float  # share of the calibration rows that it serves
    agreement: float  # of those, the share that agrees; 0 when it serves none
    chance: float  # estimated probability that the held-out rows certify it
    reason: str


def lower_bound(agreed: int, n: int, confidence: float) -> float:
    """One-sided Clopper-Pearson bound: the agreement is at least this, at this confidence."""
    if not 0 <= agreed <= n:
        raise ValueError(f"{agreed} of {n} rows cannot agree")
    if agreed == 0:
        return 0.0
    return float(stats.beta.ppf(1 - confidence, agreed, n - agreed + 1))


def rows_needed(gate: GateSettings) -> int:
    """The fewest served held-out rows that can certify a student, if every one of them agrees."""
    n = max(1, math.floor(math.log(1 - gate.confidence) / math.log(gate.threshold)))
    while lower_bound(n, n, gate.confidence) < gate.threshold:
        n += 1
    return n


def choose_cutoff(
    calibration: Sequence[Evaluation], gate: GateSettings, *, heldout: int | None = None
) -> Cutoff:
    """The cutoff with the largest coverage that is likely to be certified.

    For each distinct confidence it is estimated how likely `heldout` other rows of the same kind
    would certify a cutoff just below it: how many of them would be served and how many of those
    would agree, both with the uncertainty of an estimate from the calibration rows. The largest
    coverage whose chance is LIKELY wins; where none is, the one with the best chance.

    `heldout`: how many rows the certificate will be earned on; as many as there are calibration
    rows, when it is not known.
    """
    candidates = _candidates(calibration)
    if not candidates:
        return Cutoff(None, 0.0, 0.0, 0.0, "no servable answer on the calibration rows")
    expected = len(calibration) if heldout is None else heldout
    chances = _chances(candidates, len(calibration), expected, gate)
    likely = np.flatnonzero(chances >= LIKELY)
    best = int(likely[0]) if likely.size else int(np.argmax(chances))
    chosen, chance = candidates[best], float(chances[best])
    coverage, agreement = chosen.served / len(calibration), chosen.agreed / chosen.served
    what = "all answers" if chosen.value is None else f"confidence from {chosen.value:.4g} on"
    reason = (
        f"{what}: {chosen.agreed} of {chosen.served} calibration rows agree ({agreement:.3f}), "
        f"coverage {coverage:.3f}, chance of a certificate {chance:.2f}"
    )
    return Cutoff(chosen.value, coverage, agreement, chance, reason)


def certify(
    heldout: Sequence[Evaluation],
    cutoff: Cutoff,
    gate: GateSettings,
    *,
    task: str,
    run_id: str,
    scorer: ScorerName,
    fingerprints: Sequence[str],
    now: float,
) -> Certificate:
    """Judges a student on rows that nothing was chosen on. The certificate says why it passed.

    A row whose answer cannot be served (a fault, or a confidence below the cutoff) goes to the
    teacher: it lowers the coverage, and is no evidence for or against what is served.
    """
    served = [e for e in heldout if _serves(e, cutoff.value)]
    n, agreed = len(served), sum(e.agrees for e in served)
    coverage = n / len(heldout) if heldout else 0.0
    bound = lower_bound(agreed, n, gate.confidence)
    objections = _objections(n, agreed, len(heldout), bound, gate)
    return Certificate(
        certificate_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{METHOD}/{run_id}")),
        task=task,
        run_id=run_id,
        method=METHOD,
        scorer=scorer,
        threshold=gate.threshold,
        confidence_level=gate.confidence,
        n=n,
        agreed=agreed,
        score=agreed / n if n else 0.0,
        lower_bound=bound,
        cutoff=cutoff.value,
        coverage=coverage,
        heldout=len(heldout),
        agreement_all=sum(e.agrees for e in heldout) / len(heldout) if heldout else 0.0,
        min_coverage=gate.min_coverage,
        fingerprints=list(fingerprints),
        passed=not objections,
        reason="; ".join(objections)
        or (
            f"agreement {agreed / n:.3f} on {n} held-out rows, lower bound {bound:.4f} ≥ "
            f"{gate.threshold:g} at confidence {gate.confidence:g}, coverage {coverage:.3f}"
        ),
        at=now,
    )


def _objections(n: int, agreed: int, heldout: int, bound: float, gate: GateSettings) -> list[str]:
    """Every reason why this student may not serve, each with its numbers."""
    if n == 0:
        return [f"no servable answer on {heldout} held-out rows"]
    found = []
    needed = rows_needed(gate)
    if n < needed:
        found.append(
            f"{n} served held-out rows are too few: a threshold of {gate.threshold:g} at "
            f"confidence {gate.confidence:g} needs {needed} even without a disagreement"
        )
    elif bound < gate.threshold:
        found.append(
            f"agreement {agreed / n:.3f} ({agreed} of {n} held-out rows), lower bound "
            f"{bound:.4f} < {gate.threshold:g} at confidence {gate.confidence:g}"
        )
    if n / heldout < gate.min_coverage:
        found.append(
            f"coverage {n / heldout:.3f} ({n} of {heldout} held-out rows) is below "
            f"{gate.min_coverage:g}"
        )
    return found


# ---- the choice of a cutoff --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Candidate:
    value: float | None
    served: int
    agreed: int


def _serves(evaluation: Evaluation, cutoff: float | None) -> bool:
    """Whether the proxy would serve this answer: the same rule as store.student_wire.fault_of."""
    if evaluation.fault is not None:
        return False
    return cutoff is None or (evaluation.confidence is not None and evaluation.confidence >= cutoff)


def _candidates(calibration: Sequence[Evaluation]) -> list[_Candidate]:
    """Every cutoff that serves another set of rows, largest coverage first.

    A cutoff lies halfway between two distinct confidences, so that a confidence which comes out
    slightly different next time, in another batch, falls on the same side.
    """
    usable = [e for e in calibration if _serves(e, None)]
    if not usable:
        return []
    found = [_Candidate(None, len(usable), sum(e.agrees for e in usable))]
    measured = sorted(
        ((e.confidence, e.agrees) for e in usable if e.confidence is not None), reverse=True
    )
    levels = []  # (confidence, rows at or above it, how many of those agree), highest first
    served = agreed = 0
    for confidence, rows in groupby(measured, key=itemgetter(0)):
        for _, agrees in rows:
            served, agreed = served + 1, agreed + agrees
        levels.append((confidence, served, agreed))
    if levels and levels[-1][1] < len(usable):  # rows without a confidence fall to any cutoff
        found.append(_Candidate(*levels[-1]))
    for (below, _, _), (above, served, agreed) in pairwise(reversed(levels)):
        halfway = (below + above) / 2
        found.append(_Candidate(halfway if halfway > below else above, served, agreed))
    return found


def _chances(
    candidates: Sequence[_Candidate], calibration: int, heldout: int, gate: GateSettings
) -> _Floats:
    """How likely each candidate is to be certified on `heldout` other rows."""
    served = np.array([c.served for c in candidates])
    missed = served - [c.agreed for c in candidates]
    n = np.rint(heldout * served / calibration)
    good_enough = _at_most(_most_missed(n, gate), n, missed + PRIOR, served - missed + PRIOR)
    most_unserved = np.floor(heldout * (1 - gate.min_coverage) + 1e-9)
    covers_enough = _at_most(
        np.full(len(served), most_unserved),
        np.full(len(served), heldout),
        calibration - served + PRIOR,
        served + PRIOR,
    )
    return good_enough * covers_enough


def _most_missed(n: _Floats, gate: GateSettings) -> _Floats:
    """The most disagreements with which n rows are certified, -1 where none is few enough.

    The mirror of `lower_bound`: the bound clears the threshold exactly when so few disagreements
    have a probability of at most 1 - confidence in a student that is just at the threshold.
    """
    fewest = stats.binom.ppf(1 - gate.confidence, np.maximum(n, 1), 1 - gate.threshold)
    return np.where(n > 0, fewest - 1, -1)


def _at_most(most: _Floats, n: _Floats, a: _Floats, b: _Floats) -> _Floats:
    """P(X ≤ most) for X beta-binomial with n trials and parameters a and b, element by element."""
    x = np.arange(max(0, int(most.max())) + 1)[None, :]
    n, a, b, most = (v[:, None] for v in (n, a, b, most))
    inside = x <= np.minimum(most, n)
    x = np.where(inside, x, 0)
    log_pmf = betaln(x + a, n - x + b) - betaln(a, b) - betaln(n - x + 1, x + 1) - np.log(n + 1)
    chances: _Floats = np.where(inside, np.exp(log_pmf), 0.0).sum(axis=1)
    return chances
