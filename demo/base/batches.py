"""Examples as batches of token ids with a weight for each token."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from tokenizers import Tokenizer

from demo.base import corpus
from demo.base.draw import GeneratedExample
from demo.base.tokenizer import END, SPECIAL, START

TOKENS = 2_048  # a batch
MAX_EXAMPLE_TOKENS = 256  # tokens of an example; longer ones are drawn again
MAX_EASY_TOKENS = 64
BUCKET = 16  # examples of about the same length share a batch

# The prompt counts a little: a student that can foretell requests has better features of them.
PROMPT_WEIGHT = 0.1


@dataclass(frozen=True)
class Encoded:
    """One example in ChatML."""

    ids: list[int]
    weights: list[float]  # of each token in the loss: 1 for the answer and its end, 0 for the frame
    answer: int  # where the answer starts


def encode(tokenizer: Tokenizer, example: GeneratedExample) -> Encoded:
    """The example as the chat template writes it."""
    ids: list[int] = []
    weights: list[float] = []
    answer = 0
    start, end = SPECIAL.index(START), SPECIAL.index(END)  # the trainer numbers them first
    newline = tokenizer.encode("\n").ids
    for message in example.messages():
        frame = [start, *tokenizer.encode(message["role"] + "\n").ids]
        content = [*tokenizer.encode(message["content"]).ids, end]
        weight = 1.0 if message["role"] == "assistant" else PROMPT_WEIGHT
        answer = len(ids) + len(frame)
        ids += frame + content + newline
        weights += [0.0] * len(frame) + [weight] * len(content) + [0.0] * len(newline)
    return Encoded(ids, weights, answer)


def pad(rows: list[Encoded], width: int) -> tuple[mx.array, mx.array]:
    """Ids and weights, each [rows, width]; padding weighs nothing."""
    ids = np.zeros((len(rows), width), np.int32)
    weights = np.zeros((len(rows), width), np.float32)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        weights[number, : len(row.weights)] = row.weights
    return mx.array(ids), mx.array(weights)


def stream(
    tokenizer: Tokenizer, seed: int, easy: Callable[[], bool]
) -> Iterator[tuple[mx.array, mx.array]]:
    """Batches without end; short and easy ones for as long as `easy` says so."""
    rng = random.Random(seed)
    buckets: dict[int, list[Encoded]] = {}
    while True:
        only_easy = easy()
        _, example = corpus.draw(rng, corpus.EASY if only_easy else corpus.FAMILIES)
        row = encode(tokenizer, example)
        if len(row.ids) > (MAX_EASY_TOKENS if only_easy else MAX_EXAMPLE_TOKENS):
            continue
        length = -(-len(row.ids) // BUCKET) * BUCKET
        bucket = buckets.setdefault(length, [])
        bucket.append(row)
        if len(bucket) >= TOKENS // length:
            # One column more than the bucket: the loss needs a next token for each.
            yield pad(buckets.pop(length), length + 1)
