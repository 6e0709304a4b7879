"""A label student: what it answers to a request, and how likely its choices are.

For each field of the answers a linear classifier gives every choice a score: the weighted n-grams
of the input, plus a bias. The softmax of the scores, at a temperature that fits the calibration
rows, is how likely the choices are. The answer's tokens are its choices: one for each field, with
the log-probability of the choice and of the likeliest other one, as a chat completion has them. So
a route's confidence model reads them like those of any other student.

An input is *unfamiliar* when no choice has evidence in it (its best score, for any field, is lower
than that of nearly all calibration rows), or when hardly any of its n-grams is known. The student
says so, and nothing is served.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.label.closed import ClosedSet
from distill.label.ngrams import Floats
from distill.label.reading import StudentMessages, SystemFrame, parts_of
from distill.label.vectors import Vector, Vocabulary, blocks_of

MIN_LOGPROB = -700.0

Weights = np.ndarray[Any, np.dtype[np.int8]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """One field of an answer: the chosen place, how likely it is, and how likely the next one."""

    place: int
    logprob: float  # in nats, at most 0
    rival: float  # the same of the likeliest other choice; MIN_LOGPROB where there is none


@dataclass(frozen=True, slots=True)
class LabelAnswer:
    """What a label student answers."""

    text: str
    choices: tuple[Chosen, ...]
    familiar: bool


@dataclass(frozen=True, slots=True)
class LabelModel:
    """A trained label student. See distill.label.files for its form on disk."""

    closed: ClosedSet
    frame: SystemFrame
    vocabulary: Vocabulary
    weights: Weights  # n-grams x all choices of all fields, in steps of `steps`
    steps: Floats  # of each n-gram's row of weights
    bias: Floats  # of each choice
    temperatures: tuple[float, ...]  # of each field
    min_score: tuple[float, ...]  # of each field: a lower best score is unfamiliar
    min_known: float  # share of the input: less is unfamiliar

    def vector(self, messages: StudentMessages) -> Vector:
        """What it sees of a request."""
        return self.vocabulary.vector(blocks_of(parts_of(messages, self.frame)))

    def scores(self, vector: Vector) -> Floats:
        """The score of every choice of every field."""
        if not len(vector.places):
            return self.bias
        steps = vector.weights * self.steps[vector.places]
        scores: Floats = steps @ self.weights[vector.places].astype(np.float32) + self.bias
        return scores

    def answer(self, messages: StudentMessages) -> LabelAnswer:
        """The likeliest answer to a request. The same request has the same answer."""
        vector = self.vector(messages)
        scores = self.scores(vector)
        familiar = vector.known >= self.min_known
        choices, begin = [], 0
        for own, temperature, lowest in zip(
            self.closed.choices, self.temperatures, self.min_score, strict=True
        ):
            of_field = scores[begin : begin + len(own)]
            begin += len(own)
            choices.append(_choice(of_field, temperature))
            familiar = familiar and bool(of_field.max() >= lowest)
        text = self.closed.written([choice.place for choice in choices])
        return LabelAnswer(text, tuple(choices), familiar)


def _choice(scores: Floats, temperature: float) -> Chosen:
    place = int(scores.argmax())
    if len(scores) == 1:
        return Chosen(place, 0.0, MIN_LOGPROB)
    scaled = (scores - scores[place]) / temperature
    total = math.log(float(np.exp(scaled).sum()))
    scaled[place] = -np.inf
    return Chosen(place, -total, max(float(scaled.max()) - total, MIN_LOGPROB))
