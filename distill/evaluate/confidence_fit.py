"""Fits the confidence of a student's answers: a logistic regression on the calibration rows.

Why the rivals have the largest prior weight: a token's probability mixes how likely the answer is
with the number of ways to write it. Where the base hardly knows a token, its probability is spread
over many others, in right and wrong answers alike. One strong rival means another answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill.gate.groups import group_numbers
from store.chat.confidence import certainties
from store.records import (
    ConfidenceModel,
    Evaluation,
)

# The prior weights of the standardised certainties: the rivals alone.
PRIOR = {"mean": 0.0, "rivals": 1.0}
RIDGE = 3.0  # precision of that prior: Gaussian, with variance 1 / RIDGE
# Half a row that agrees and half a row that does not, at the mean of all: Jeffreys' prior for an
# agreement, so that rows which all agree do not make every answer certain.
HALF = 0.5
MIN_SPREAD = 0.5  # lower limit of the standard deviation that a signal is divided by

_Floats = np.ndarray[Any, np.dtype[np.float64]]


def fit_confidence(evaluations: Sequence[Evaluation]) -> ConfidenceModel:
    """The confidence model that fits these rows; pass rows of the calibration split alone.

    No weight is negative: more doubt never raises the confidence. With few rows, or without a
    disagreement, the prior decides, and answers are ordered by their rivals. Rows with a fault do
    not count: they are never served, at any confidence. The rows of one group weigh as much as one
    row. The same rows give the same model.
    """
    usable = [e for e in evaluations if e.signals is not None and not e.fault]
    rows = [(e.signals, e.agrees) for e in usable if e.signals is not None]
    names = list(PRIOR)
    x = np.array([[certainties(signals)[name] for name in names] for signals, _ in rows])
    x = x.reshape(len(rows), len(names))
    agrees = np.array([agrees for _, agrees in rows], dtype=np.float64)
    numbers = group_numbers(usable)
    counts = 1 / np.bincount(numbers)[numbers] if rows else np.zeros(0)
    mean = np.average(x, axis=0, weights=counts) if rows else np.zeros(len(names))
    variance = np.average((x - mean) ** 2, axis=0, weights=counts) if rows else np.ones(len(names))
    spread = np.maximum(np.sqrt(variance), MIN_SPREAD)

    prior = np.array(list(PRIOR.values()))
    intercept, weights = _logistic((x - mean) / spread, agrees, counts, prior)
    weights /= spread
    return ConfidenceModel(
        intercept=float(intercept - weights @ mean),
        weights={name: float(w) for name, w in zip(names, weights, strict=True)},
    )


def _logistic(
    z: _Floats, agrees: _Floats, counts: _Floats, prior: _Floats
) -> tuple[float, _Floats]:
    """Intercept and weights with the largest posterior.

    `z`: standardised, rows x signals. `counts`: how much each row counts.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 - slow to import
    from scipy.special import expit  # noqa: PLC0415 - slow to import

    def loss(parameters: _Floats) -> tuple[float, _Floats]:
        intercept, weights = parameters[0], parameters[1:]
        logits = intercept + z @ weights
        value = np.sum(counts * (np.logaddexp(0, logits) - agrees * logits))
        value += HALF * (np.logaddexp(0, intercept) + np.logaddexp(0, -intercept))
        value += RIDGE / 2 * np.sum((weights - prior) ** 2)
        errors = counts * (expit(logits) - agrees)
        slope = np.concatenate(
            [
                [errors.sum() + HALF * (2 * expit(intercept) - 1)],
                z.T @ errors + RIDGE * (weights - prior),
            ]
        )
        return float(value), slope

    start = np.concatenate([[0.0], prior])
    bounds = [(None, None), *[(0.0, None)] * len(prior)]
    fit = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return float(fit.x[0]), fit.x[1:]
