"""From texts to sparse vectors: TF-IDF over the n-grams that the training rows have.

Each part of the conversation has a block for its words and one for its characters, each of length 1
when all of its n-grams are known. N-grams that no two training rows have are unknown: they take
their share of the length, as the rarest would, and contribute nothing. So an input unlike the
training rows has a short vector.

Salton and Buckley, "Term-weighting approaches in automatic text retrieval", Information Processing
& Management 24 (1988), for the weights: 1 + log of the count, times 1 + log((1 + rows) / (1 + rows
with it)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.label.ngrams import Floats, Hashes, character_ngrams, counted, word_ngrams
from distill.label.reading import PARTS

MIN_ROWS = 2  # that an n-gram is in, to be known

Places = np.ndarray[Any, np.dtype[np.intp]]
Counted = tuple[Hashes, Floats]


@dataclass(frozen=True, slots=True)
class Vector:
    """One input: the places of its known n-grams in the vocabulary, and their weights."""

    places: Places
    weights: Floats
    known: float  # share of the input that is known: the mean squared length of its blocks, 0 to 1


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The known n-grams, by rising hash, each with its weight."""

    hashes: Hashes
    idf: Floats
    unknown_idf: float

    def vector(self, blocks: Sequence[Counted]) -> Vector:
        """The vector of an input from the n-grams of its blocks: see `blocks_of`."""
        places, weights, known = [], [], 0.0
        last = len(self.hashes) - 1
        for hashes, counts in blocks:
            at = np.minimum(np.searchsorted(self.hashes, hashes), last)
            hit = self.hashes[at] == hashes
            at, weighed = at[hit], counts[hit] * self.idf[at[hit]]
            inside = float(weighed @ weighed)
            rest = counts[~hit] * self.unknown_idf
            length = inside + float(rest @ rest)
            if inside:
                places.append(at)
                weights.append(weighed / math.sqrt(length))
                known += inside / length / len(blocks)
        if not places:
            return Vector(np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.float32), 0.0)
        return Vector(np.concatenate(places), np.concatenate(weights), known)


def blocks_of(parts: Mapping[str, str]) -> list[Counted]:
    """The counted n-grams of an input's parts: a block of words and one of characters for each."""
    blocks = []
    for part, text in parts.items():
        salt = PARTS.index(part)
        blocks.append(counted(word_ngrams(text, salt)))
        blocks.append(counted(character_ngrams(text, salt)))
    return [block for block in blocks if len(block[0])]


def learned_vocabulary(rows: Sequence[Sequence[Counted]]) -> Vocabulary:
    """The vocabulary of training rows, each the blocks of an input."""
    every = [hashes for blocks in rows for hashes, _ in blocks]
    hashes, counts = np.unique(
        np.concatenate(every) if every else np.zeros(0, dtype=np.uint32), return_counts=True
    )
    known = (counts >= MIN_ROWS) & ((counts < len(rows)) | (len(rows) < MIN_ROWS * 2))
    idf = 1 + np.log((1 + len(rows)) / (1 + counts[known]))
    return Vocabulary(hashes[known], idf.astype(np.float32), 1 + math.log((1 + len(rows)) / 2))
