"""The cutoffs: the confidences from which a student could serve, and the order of their tests.

Only the calibration rows are used here. The result is a fixed sequence: it begins where a
certificate is likeliest, and goes on towards larger coverage. The gate tests it on the held-out
rows, one cutoff after the other, until one fails. Each test may then use the whole error
probability, and still at most that share of all students gets a cutoff whose served part is below
the threshold.

Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then test", Annals of Applied Statistics 19
(2025), https://doi.org/10.1214/24-AOAS1998 (fixed-sequence testing of thresholds)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from distill.gate.bounds import Floats, informed_weights, most_missed, spread
from distill.gate.groups import GroupCounts, GroupedRows
from distill.gate.recall import LabelledRows, floor_of, protection_of
from store.records import Evaluation, OutputKind
from store.settings.tasks import GateSettings

STEPS = 20  # cutoffs after the first, at most
SLACK = 0.1  # how far below the lowest confidence the lowest cutoff lies, as a share of it
JEFFREYS = 0.5  # Jeffreys' prior for an agreement that is estimated from few rows


@dataclass(frozen=True, slots=True)
class Cutoff:
    """A confidence from which a student would serve, with its estimates on the calibration rows."""

    value: float | None  # lowest confidence served; None: everything is served
    coverage: float  # share of the calibration groups that it serves
    agreement: (
        float  # mean agreement of the groups with a row that it serves; 0 when it serves none
    )
    chance: float  # estimated probability that the held-out rows certify it
    reason: str
    prior: tuple[float, ...] = ()  # of the bound's bets: see distill.gate.bounds


@dataclass(frozen=True, slots=True)
class _Candidate:
    value: float | None
    served: GroupCounts
    protected: tuple[GroupCounts, ...]  # of each protected label, where the teacher gives it


def serves(evaluation: Evaluation, cutoff: float | None) -> bool:
    """Whether the proxy would serve this answer: the rule of store.chat.student_wire.fault_of."""
    if evaluation.fault is not None:
        return False
    return cutoff is None or (evaluation.confidence is not None and evaluation.confidence >= cutoff)


def choose_cutoffs(
    calibration: Sequence[Evaluation],
    gate: GateSettings,
    *,
    heldout: int,
    alpha: float,
    output: OutputKind = "text",
) -> list[Cutoff]:
    """The cutoffs to test, in this order; at least one.

    For each candidate the probability is estimated that `heldout` other groups of the same kind
    would certify it at an error probability of `alpha`: how many of them would be served, and how
    many of those would agree, both with the uncertainty of an estimate from the calibration groups,
    as if the rows of a group agreed or disagreed together; where labels are protected, also that
    the recall of each would be proven. The most probable one comes first, since nothing is
    certified when the first one fails; of equal ones the larger coverage; when none has a chance,
    the highest that covers enough. Up to STEPS more follow, at even steps of coverage; the last one
    serves answers about as confident as the least confident of the calibration rows.

    `output`: the kind of the task's answers.
    """
    candidates = _candidates(calibration, gate, output)  # largest coverage first
    if not candidates:
        return [Cutoff(None, 0.0, 0.0, 0.0, "no servable answer on the calibration rows")]
    groups = len(GroupedRows(calibration))
    chances = _chances(candidates, groups, heldout, gate, alpha)
    first = int(np.argmax(chances)) if chances.any() else _smallest(candidates, groups, gate)
    served = np.array([c.served.covered for c in candidates[: first + 1]])
    steps = np.linspace(served[first], served[0], STEPS + 1)
    order = dict.fromkeys(int(np.argmin(np.abs(served - step))) for step in steps)
    return [_cutoff(candidates[place], groups, float(chances[place]), gate) for place in order]


def _smallest(candidates: Sequence[_Candidate], groups: int, gate: GateSettings) -> int:
    """The place of the highest cutoff that still covers enough of the calibration groups."""
    needed = gate.min_coverage * groups
    return max((i for i, c in enumerate(candidates) if c.served.covered >= needed), default=0)


def _cutoff(candidate: _Candidate, groups: int, chance: float, gate: GateSettings) -> Cutoff:
    served = candidate.served
    coverage, agreement = served.covered / groups, served.agreed / served.groups
    what = "all answers" if candidate.value is None else f"confidence from {candidate.value:.4g} on"
    return Cutoff(
        candidate.value,
        coverage,
        agreement,
        chance,
        f"{what}: {served.agreed:g} of {served.groups} calibration groups agree "
        f"({agreement:.3f}), coverage {coverage:.3f}, chance of a certificate {chance:.2f}",
        (served.agreed, served.groups - served.agreed, gate.threshold),
    )


def _candidates(
    calibration: Sequence[Evaluation], gate: GateSettings, output: OutputKind = "text"
) -> list[_Candidate]:
    """One cutoff for each set of rows that can be served, largest coverage first.

    A cutoff lies halfway between two distinct confidences, so that a confidence that comes out
    slightly different in another batch falls on the same side. The lowest lies a little below all
    confidences: a certificate covers no answer that is far less confident than those.
    """
    usable = [place for place, e in enumerate(calibration) if serves(e, None)]
    if not usable:
        return []
    places: defaultdict[float, list[int]] = defaultdict(list)  # of the rows, by confidence
    for place in usable:
        confidence = calibration[place].confidence
        if confidence is not None:
            places[confidence].append(place)
    grouped, served = GroupedRows(calibration), list[int]()
    names = protection_of(gate, output, 1.0).names
    labelled = LabelledRows(calibration, output, only=names) if names else None

    def candidate(value: float | None, places: Sequence[int]) -> _Candidate:
        protected = [labelled.counts(name, set(places)) for name in names] if labelled else []
        return _Candidate(value, grouped.counts(places), tuple(protected))

    levels = []  # (confidence, how many rows are served at or above it), highest first
    for confidence in sorted(places, reverse=True):
        served += places[confidence]
        levels.append((confidence, len(served)))
    candidates = []
    if len(served) < len(usable):  # rows without a confidence fall to any cutoff
        candidates.append(candidate(None, usable))
    if levels:
        lowest, count = levels[-1]
        candidates.append(candidate(lowest - SLACK * abs(lowest), served[:count]))
    for (below, _), (above, count) in pairwise(reversed(levels)):
        halfway = (below + above) / 2
        candidates.append(candidate(halfway if halfway > below else above, served[:count]))
    return candidates


# ---- the chance of a certificate ---------------------------------------------------------------


def _chances(
    candidates: Sequence[_Candidate],
    groups: int,
    heldout: int,
    gate: GateSettings,
    alpha: float,
) -> Floats:
    """How likely each candidate is to be certified on `heldout` other groups."""
    agreed = np.array([c.served.agreed for c in candidates])
    missed = np.array([c.served.groups - c.served.agreed for c in candidates])
    covered = np.array([c.served.covered for c in candidates])
    n = np.rint(heldout * (agreed + missed) / groups)
    weights = informed_weights(agreed, missed, gate.threshold)
    most = most_missed(n, gate.threshold, alpha, weights)
    good_enough = _at_most(most, n, missed + JEFFREYS, agreed + JEFFREYS)
    most_unserved = np.floor(heldout * (1 - gate.min_coverage) + 1e-9)
    covers_enough = _at_most(
        np.full(len(covered), most_unserved),
        np.full(len(covered), float(heldout)),
        np.maximum(groups - covered, 0) + JEFFREYS,
        covered + JEFFREYS,
    )
    chances = good_enough * covers_enough
    for counts in zip(*(c.protected for c in candidates), strict=True):
        proven = _proof_chances(counts, heldout / groups, floor_of(gate), alpha)
        if proven.any():  # where none has a chance, the label does not tell them apart
            chances *= proven
    return chances


def _proof_chances(
    counts: Sequence[GroupCounts], larger: float, floor: float, alpha: float
) -> Floats:
    """How likely `larger` times these groups of a protected label prove its recall."""
    agreed = np.array([c.agreed for c in counts])
    missed = np.array([c.groups - c.agreed for c in counts])
    n = np.rint(larger * (agreed + missed))
    most = most_missed(n, floor, alpha, spread()[1]) if floor > 0 else n
    return _at_most(most, n, missed + JEFFREYS, agreed + JEFFREYS)


def _at_most(most: Floats, n: Floats, a: Floats, b: Floats) -> Floats:
    """P(X ≤ most) for X beta-binomial with n trials and parameters a and b, element by element."""
    from scipy.special import betaln  # noqa: PLC0415 - slow to import

    x = np.arange(max(0, int(most.max())) + 1)[None, :]
    n, a, b, most = (v[:, None] for v in (n, a, b, most))
    inside = x <= np.minimum(most, n)
    x = np.where(inside, x, 0)
    log_pmf = betaln(x + a, n - x + b) - betaln(a, b) - betaln(n - x + 1, x + 1) - np.log(n + 1)
    chances: Floats = np.where(inside, np.exp(log_pmf), 0.0).sum(axis=1)
    return chances
