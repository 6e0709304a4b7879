"""Exact match of the base student on examples that it has not seen."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from tokenizers import Tokenizer

from demo.base import corpus
from demo.base.batches import BUCKET, MAX_EXAMPLE_TOKENS, Encoded, encode, pad

SEED = 1_000_000  # far from every training seed
AT_ONCE = 32


@dataclass(frozen=True)
class Score:
    """How many answers were right to the last token, by family."""

    right: Counter[str]
    answered: Counter[str]

    @property
    def total(self) -> float:
        """The share that was right over all families."""
        return self.right.total() / self.answered.total()

    def lines(self) -> list[str]:
        """One line a family, the total first."""
        by_family = (
            f"{name:16}{self.right[name] / self.answered[name]:6.2f}{self.answered[name]:6}"
            for name in sorted(self.answered)
        )
        return [f"{'all':16}{self.total:6.3f}{self.answered.total():6}", *by_family]


def score(model: Any, tokenizer: Tokenizer, count: int, seed: int = SEED) -> Score:
    """Exact match under greedy decoding.

    A greedy answer is the wanted one exactly when each of its tokens is the likeliest after the
    wanted ones before it, so one pass over prompt and answer replaces generating.
    """
    buckets: dict[int, list[tuple[str, Encoded]]] = {}
    rng = random.Random(seed)
    while count > 0:
        name, example = corpus.draw(rng)
        row = encode(tokenizer, example)
        if len(row.ids) > MAX_EXAMPLE_TOKENS:
            continue
        count -= 1
        buckets.setdefault(-(-len(row.ids) // BUCKET) * BUCKET, []).append((name, row))
    right: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    for length, bucket in sorted(buckets.items()):
        for first in range(0, len(bucket), AT_ONCE):
            part = bucket[first : first + AT_ONCE]
            ids, _ = pad([row for _, row in part], length)
            likeliest = np.array(mx.argmax(model(ids), axis=-1))
            for (name, row), guesses in zip(part, likeliest, strict=True):
                answered[name] += 1
                # The last id is the newline after the end mark, which is never generated.
                wanted = row.ids[row.answer : -1]
                right[name] += wanted == guesses[row.answer - 1 : len(row.ids) - 2].tolist()
    return Score(right, answered)
