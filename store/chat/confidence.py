"""How sure a student's answer is: one number from the signals of its token log-probabilities.

The number is a logistic function of the signals' doubts, and estimates the probability that the
answer agrees with the teacher's. distill.evaluate.confidence_fit fits it, a route carries it, and
proxy and control plane compute the same from it.
"""

from __future__ import annotations

import math

from store.records import (
    ConfidenceModel,
    Signals,
)

# A doubt below one in a million is no less than that: log-probabilities are rounded to as much.
MIN_PROBABILITY = 1e-6


def confidence_of(signals: Signals, model: ConfidenceModel | None) -> float:
    """The confidence from 0 to 1; without a model the lowest token log-probability, 0 at most.

    A model with a signal that is unknown here gives 0: its answers go to the teacher.
    """
    if model is None:
        return signals.lowest
    certainty = certainties(signals)
    if not model.weights.keys() <= certainty.keys():
        return 0.0
    total = model.intercept + sum(w * certainty[name] for name, w in model.weights.items())
    return 1 / (1 + math.exp(-total)) if total >= 0 else math.exp(total) / (1 + math.exp(total))


def certainties(signals: Signals) -> dict[str, float]:
    """The model's inputs: of each signal the negated log of its doubt, from about 0 to 14.

    Each rises with the certainty, on the scale that separates right from wrong answers: 0.99 is as
    far from 0.999 as 0.9 from 0.99. The lowest token log-probability is not an input: beside these
    two it adds nothing (bench/README.md).
    """
    return {
        "mean": _certainty(-signals.mean),
        "rivals": _certainty(math.exp(signals.rivals)),
    }


def _certainty(doubt: float) -> float:
    return -math.log(max(doubt, MIN_PROBABILITY))
