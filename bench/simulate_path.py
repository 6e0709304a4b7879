"""The gate's whole path with simulated students: choose_cutoffs, then certify.

A student is a function from its confidence (uniform in 0..1) to the probability that its answer
agrees. So what it serves at or above a cutoff has a known agreement, and a certificate is wrong
exactly when that lies below the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from bench.simulate_gate import RETRAINS, clopper_pearson
from distill.gate.bounds import (
    betting_lower_bound,
    bias_lower_bound,
    prediction_powered_lower_bound,
)
from distill.gate.cutoffs import JEFFREYS, Cutoff, _at_most, _candidates, choose_cutoffs, serves
from distill.gate.gate import attempt_alpha, certify
from store.jsontext import JsonObject
from store.records import (
    Certificate,
    Evaluation,
)
from store.settings.tasks import GateSettings

GATE = GateSettings(threshold=0.95)
CALIBRATION, HELDOUT = 200, 300
LIKELY = 0.9  # chance of being certified that a single cutoff should have
PEEKS = 10  # looks at growing held-out rows

Student = Callable[[Any], Any]  # confidences → probabilities that these answers agree

# Below 0.95 at any cutoff, though its confidence is informative.
BELOW: dict[str, Student] = {
    "0.949 at every confidence": lambda u: np.full_like(u, 0.949),
    "0.949 when sure, 0.80 when not": lambda u: np.where(u >= 0.4, 0.949, 0.80),
    "from 0.90 up to 0.949": lambda u: np.minimum(0.949, 0.90 + 0.10 * u),
}
GOOD: dict[str, Student] = {
    "0.98 at every confidence": lambda u: np.full_like(u, 0.98),
    "0.99 when sure (75 %), 0.70 when not": lambda u: np.where(u >= 0.25, 0.99, 0.70),
    "errs on 5 %, mostly when unsure": lambda u: 1 - 0.20 * (1 - u) ** 3,
    "errs on 8 %, mostly when unsure": lambda u: 1 - 0.32 * (1 - u) ** 3,
}


def rows(rng: np.random.Generator, n: int, student: Student) -> list[Evaluation]:
    """So many rows that a student has answered."""
    confidences = rng.random(n)
    agrees = rng.random(n) < student(confidences)
    return [
        Evaluation(
            run_id="run",
            input_hash="hash",
            split="heldout",
            scorer="exact",
            score=float(agree),
            agrees=bool(agree),
            teacher_output="a",
            student_output="a",
            confidence=float(confidence),
            latency_ms=1.0,
            fingerprint="f",
        )
        for confidence, agree in zip(confidences, agrees, strict=True)
    ]


def judge(
    heldout: Sequence[Evaluation], cutoffs: Sequence[Cutoff], attempt: int = 1
) -> Certificate:
    """The gate's certificate for these rows."""
    return certify(
        heldout,
        cutoffs,
        GATE,
        attempt=attempt,
        output="text",
        task="simulated",
        run_id="run",
        scorer="exact",
        fingerprints=["f"],
        now=0.0,
    )


def fixed(rng: np.random.Generator, student: Student, heldout: int, attempt: int) -> list[Cutoff]:
    """The cutoffs that this student's calibration rows lead to."""
    calibration = rows(rng, CALIBRATION, student)
    return choose_cutoffs(calibration, GATE, heldout=heldout, alpha=attempt_alpha(GATE, attempt))


# ---- students that must not be promoted --------------------------------------------------------


def wrong_once(rng: np.random.Generator, student: Student) -> bool:
    """One attempt, looked at at PEEKS moments while its held-out rows come in."""
    cutoffs, results = fixed(rng, student, HELDOUT, 1), rows(rng, 2 * HELDOUT, student)
    looks = (len(results) * (k + 1) // PEEKS for k in range(PEEKS))
    return any(judge(results[:n], cutoffs).passed for n in looks)


def wrong_in_ten(rng: np.random.Generator, student: Student) -> bool:
    """Ten retrains on the same inputs: each student errs in its own way, on each its own part."""
    return any(
        judge(rows(rng, HELDOUT, student), fixed(rng, student, HELDOUT, k), k).passed
        for k in range(1, RETRAINS + 1)
    )


def wrong_promotions(rounds: int) -> list[JsonObject]:
    """How often students below the threshold are promoted, with an exact interval."""
    results = []
    for number, (name, student) in enumerate(BELOW.items()):
        for what, once, alpha in (
            (f"one attempt, {PEEKS} looks", wrong_once, attempt_alpha(GATE, 1)),
            (f"{RETRAINS} retrains", wrong_in_ten, 1 - GATE.confidence),
        ):
            rng = np.random.default_rng([20240607, number])
            count = rounds if once is wrong_once else max(10, rounds // 4)
            wrong = sum(once(rng, student) for _ in range(count))
            low, high = stats.binomtest(wrong, count).proportion_ci()
            results.append(
                {
                    "student": name,
                    "path": what,
                    "alpha": alpha,
                    "rounds": count,
                    "wrong": wrong / count,
                    "low": float(low),
                    "high": float(high),
                }
            )
    return results


# ---- students that should be -------------------------------------------------------------------


def coverage_won(rounds: int) -> list[JsonObject]:
    """Share promoted and mean coverage served: a sequence of cutoffs against a single one.

    `one_cutoff`: the largest coverage with a chance of 0.9, or else the best chance, by the same
    bound. `clopper_pearson`: the same by the exact bound for a single look, with all of the chance
    of error in each attempt: the former rule, whose promise does not hold for repeated attempts.
    """
    results = []
    for number, (name, student) in enumerate(GOOD.items()):
        for heldout in (HELDOUT, 3 * HELDOUT):
            rng = np.random.default_rng([20240608, number, heldout])
            coverages: dict[str, list[float]] = {
                "ours": [],
                "one_cutoff": [],
                "clopper_pearson": [],
            }
            for _ in range(rounds):
                calibration = rows(rng, 2 * heldout // 3, student)
                judged = rows(rng, heldout, student)
                alpha = attempt_alpha(GATE, 1)
                ours = choose_cutoffs(calibration, GATE, heldout=heldout, alpha=alpha)
                coverages["ours"].append(_served(judge(judged, ours)))
                likely = [c for c in ours if c.chance >= LIKELY] or ours[:1]
                coverages["one_cutoff"].append(_served(judge(judged, likely[-1:])))
                coverages["clopper_pearson"].append(single_look(calibration, judged))
            row: JsonObject = {"student": name, "heldout": heldout, "rounds": rounds}
            for rule, served in coverages.items():
                row[rule] = float(np.mean(served))
                row[f"{rule}_promoted"] = float(np.mean([c > 0 for c in served]))
            results.append(row)
    return results


def single_look(calibration: Sequence[Evaluation], heldout: Sequence[Evaluation]) -> float:
    """The coverage by one cutoff and one look at the exact bound; 0 when rejected."""
    candidates = _candidates(calibration, GATE)
    served = np.array([c.served.groups for c in candidates])
    missed = served - [c.served.agreed for c in candidates]
    limits = np.concatenate([[-1], clopper_pearson(GATE.threshold, 0.05, len(heldout))])
    n = np.rint(len(heldout) * served / len(calibration)).astype(np.int64)
    chances = _at_most(
        limits[n].astype(np.float64),
        n.astype(np.float64),
        missed + JEFFREYS,
        served - missed + JEFFREYS,
    )
    unserved = np.full(len(n), np.floor(len(heldout) * (1 - GATE.min_coverage)))
    chances *= _at_most(
        unserved,
        np.full(len(n), len(heldout)),
        len(calibration) - served + JEFFREYS,
        served + JEFFREYS,
    )
    likely = np.flatnonzero(chances >= LIKELY)
    cutoff = candidates[int(likely[0]) if likely.size else int(np.argmax(chances))].value
    agrees = [e.agrees for e in heldout if serves(e, cutoff)]
    enough = len(agrees) - sum(agrees) <= limits[len(agrees)]
    return len(agrees) / len(heldout) if enough and _covers(len(agrees), len(heldout)) else 0.0


def _served(certificate: Certificate) -> float:
    return certificate.coverage if certificate.passed else 0.0


def _covers(served: int, heldout: int) -> bool:
    return served >= GATE.min_coverage * heldout


# ---- bounds of scores and of judged answers ----------------------------------------------------


def bounds_right(rounds: int) -> list[JsonObject]:
    """How often the bounds of a mean of scores, and of a judge's share, are right at alpha 0.05."""
    rng = np.random.default_rng(20240609)
    scores = [rng.beta(9, 1, 300) for _ in range(rounds)]  # their mean is 0.9
    results = [betting_lower_bound(list(each), 0.05) for each in scores]
    rightly = [
        # people call 0.9 good; the judge calls good 0.99 of these, and 0.3 of the others
        _powered(*_judged(rng, 300, 100), 0.05)
        for _ in range(rounds)
    ]
    return [
        {
            "bound": name,
            "true": 0.9,
            "coverage": float(np.mean([bound <= 0.9 for bound in bounds])),
            "median": float(np.median(bounds)),
            "rounds": rounds,
        }
        for name, bounds in (
            ("mean of 300 scores", results),
            ("300 judged, 100 by people", rightly),
        )
    ]


def _powered(judged: list[bool], pairs: list[tuple[bool, bool]], alpha: float) -> float:
    bias_low = bias_lower_bound(pairs, alpha / 2)
    return prediction_powered_lower_bound(sum(judged), len(judged), bias_low, alpha)


def _judged(
    rng: np.random.Generator, n: int, labelled: int
) -> tuple[list[bool], list[tuple[bool, bool]]]:
    people = rng.random(n + labelled) < 0.9
    judge = rng.random(n + labelled) < np.where(people, 0.99, 0.3)
    pairs = [(bool(j), bool(p)) for j, p in zip(judge[n:], people[n:], strict=True)]
    return [bool(j) for j in judge[:n]], pairs
