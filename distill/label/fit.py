"""Trains a label student: a linear classifier for each field, by scikit-learn.

One logistic regression for each choice against all others (L2, liblinear's dual coordinate descent:
seconds for 150 labels where a multinomial one takes minutes, and as good, see bench/README.md).
The softmax of their scores gets one temperature a field, the likeliest for the calibration rows:
Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks" (ICML 2017).

Fan, Chang, Hsieh, Wang and Lin, "LIBLINEAR: a library for large linear classification", Journal of
Machine Learning Research 9 (2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distill.label.closed import ClosedSet
from distill.label.model import LabelModel
from distill.label.ngrams import Floats
from distill.label.reading import StudentMessages, SystemFrame, parts_of, system_of
from distill.label.vectors import Vector, blocks_of, learned_vocabulary

VERSION = 1  # of what is learned from the same rows
C = 30.0  # inverse of the penalty on the weights
TOLERANCE = 0.1  # liblinear's: 0.01 takes twice as long for the same agreement
UNFAMILIAR = 0.02  # share of the calibration rows whose best score counts as too low
UNKNOWN = 0.005  # share of them that has too few known n-grams
TEMPERATURES = np.geomspace(0.2, 5.0, 41)
STEPS = 127  # of the largest weight of an n-gram

Matrix = Any  # of scipy.sparse


@dataclass(frozen=True, slots=True)
class Sample:
    """A request and its answer, as the student's messages have them."""

    messages: StudentMessages
    target: str


def fit(closed: ClosedSet, train: Sequence[Sample], calibration: Sequence[Sample]) -> LabelModel:
    """Learns from the training rows; temperatures and limits are those of the calibration rows.

    Rows whose answer is none of the choices teach nothing. Raises ValueError without n-grams that
    two training rows have.
    """
    placed = [(s, places) for s in train if (places := closed.places(s.target)) is not None]
    frame = SystemFrame.of([system_of(sample.messages) for sample, _ in placed])
    blocks = [blocks_of(parts_of(sample.messages, frame)) for sample, _ in placed]
    vocabulary = learned_vocabulary(blocks)
    if not len(vocabulary.hashes):
        raise ValueError("no two training rows have an n-gram in common")
    matrix = _matrix([vocabulary.vector(of_row) for of_row in blocks], len(vocabulary.hashes))
    weights, bias = [], []
    for field, choices in enumerate(closed.choices):
        own = np.array([places[field] for _, places in placed])
        of_field, bias_of_field = _classifier(matrix, own, len(choices))
        weights.append(of_field)
        bias.append(bias_of_field)
    rounded, steps = _in_steps(np.concatenate(weights, axis=1))
    model = LabelModel(
        closed=closed,
        frame=frame,
        vocabulary=vocabulary,
        weights=rounded,
        steps=steps,
        bias=np.concatenate(bias),
        temperatures=(1.0,) * len(closed.fields),
        min_score=(-np.inf,) * len(closed.fields),
        min_known=0.0,
    )
    return _calibrated(model, calibration or train)


def _matrix(vectors: Sequence[Vector], ngrams: int) -> Matrix:
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - slow to import

    ends = np.cumsum([0, *(len(vector.places) for vector in vectors)])
    weights = np.concatenate([vector.weights for vector in vectors])
    places = np.concatenate([vector.places for vector in vectors])
    return csr_matrix((weights, places, ends), shape=(len(vectors), ngrams))


def _classifier(matrix: Matrix, own: Any, choices: int) -> tuple[Floats, Floats]:
    """Weights (n-grams x choices) and biases of one field. `own`: the place of each row's choice.

    A choice that no row has, or all have, has no weights.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - slow to import

    weights = np.zeros((matrix.shape[1], choices), dtype=np.float32)
    bias = np.zeros(choices, dtype=np.float32)
    for choice in range(choices if choices > 2 else choices - 1):
        classifier = LogisticRegression(
            C=C, solver="liblinear", dual=True, tol=TOLERANCE, random_state=0
        )
        classifier.fit(matrix, own == choice)
        weights[:, choice] = classifier.coef_[0]
        bias[choice] = classifier.intercept_[0]
    if choices == 2:  # the scores of both are those of one, with opposite signs
        weights[:, 1], bias[1] = -weights[:, 0], -bias[0]
    return weights, bias


def _in_steps(weights: Floats) -> tuple[Any, Floats]:
    """The weights as whole numbers of steps, and the step of each n-gram."""
    steps = np.maximum(np.abs(weights).max(axis=1), np.float32(1e-12)) / STEPS
    return np.rint(weights / steps[:, None]).astype(np.int8), steps.astype(np.float32)


def _calibrated(model: LabelModel, rows: Sequence[Sample]) -> LabelModel:
    """The model with the temperatures and the limits that these rows lead to."""
    vectors = [model.vector(row.messages) for row in rows]
    scores = np.array([model.scores(vector) for vector in vectors])
    places = [model.closed.places(row.target) for row in rows]
    known = np.array([at is not None for at in places])
    temperatures, lowest, begin = [], [], 0
    for field, choices in enumerate(model.closed.choices):
        of_field = scores[:, begin : begin + len(choices)]
        begin += len(choices)
        right = np.array([at[field] for at in places if at is not None], dtype=np.intp)
        temperatures.append(_temperature(of_field[known], right))
        share = UNFAMILIAR / len(model.closed.choices)
        lowest.append(float(np.quantile(of_field.max(axis=1), share)))
    return replace(
        model,
        temperatures=tuple(temperatures),
        min_score=tuple(lowest),
        min_known=float(np.quantile([vector.known for vector in vectors], UNKNOWN)),
    )


def _temperature(scores: Floats, right: Any) -> float:
    """The temperature at which the right choices are likeliest. `scores`: rows x choices."""
    if not len(right) or scores.shape[1] < 2:
        return 1.0

    def likelihood(temperature: float) -> float:
        scaled = (scores - scores.max(axis=1, keepdims=True)) / temperature
        chosen = scaled[np.arange(len(right)), right]
        return float((chosen - np.log(np.exp(scaled).sum(axis=1))).sum())

    return float(max(TEMPERATURES, key=likelihood))
