"""Training rows in batches: every row once per epoch, in new batches each time.

`mlx_lm.tuner.train` uses these instead of its own batches, which stay the same for the whole
training, drop the last `len % batch_size` rows, and reject sets smaller than a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from distill.train.rendering import Rendered

# Lengths are rounded up so that Metal and CUDA compile few shapes.
TOKENS_STEP = 16
TARGETS_STEP = 8
LENGTH_NOISE = 0.15  # relative: mixes rows of similar length, and padding stays small


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded rows. B rows, L tokens, C positions whose next token has to be predicted."""

    tokens: np.ndarray[Any, Any]  # int32 (B, L)
    positions: np.ndarray[Any, Any]  # int32 (B, C): the target is what follows this position
    targets: np.ndarray[Any, Any]  # int32 (B, C)
    weights: np.ndarray[Any, Any]  # float32 (B, C): 1 for a target, 0 for padding

    def arrays(self) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """The fields as MLX arrays, in the order of the arguments of distill.train.loss."""
        return (
            mx.array(self.tokens),
            mx.array(self.positions),
            mx.array(self.targets),
            mx.array(self.weights),
        )


class Batches:
    """Iterates over rows for `mlx_lm.tuner`: each epoch in other batches and another order.

    With `loop`, which training uses, the epochs never end.
    """

    def __init__(self, *, mask_prompt: bool, seed: int) -> None:
        self._mask_prompt = mask_prompt
        self._random = np.random.default_rng(seed)
        self.tokens = 0  # yielded so far, prompts included, padding not

    def __call__(
        self,
        dataset: Sequence[Rendered],
        batch_size: int,
        max_seq_length: int,
        loop: bool = False,
        **_: Any,
    ) -> Iterator[tuple[mx.array, mx.array, mx.array, mx.array]]:
        """The batches as MLX arrays. `max_seq_length`: rows must be no longer than this."""
        if any(len(row) > max_seq_length for row in dataset):
            raise ValueError(f"a row is longer than max_seq_length ({max_seq_length} tokens)")
        while True:
            for rows in self._epoch(dataset, batch_size):
                self.tokens += sum(len(row) for row in rows)
                yield pad(rows, mask_prompt=self._mask_prompt).arrays()
            if not loop:
                return

    def _epoch(self, dataset: Sequence[Rendered], batch_size: int) -> list[list[Rendered]]:
        noise = self._random.uniform(1 - LENGTH_NOISE, 1 + LENGTH_NOISE, len(dataset))
        order = np.argsort(noise * [len(row) for row in dataset], kind="stable")
        batches = [
            [dataset[i] for i in order[first : first + batch_size]]
            for first in range(0, len(order), batch_size)
        ]
        self._random.shuffle(batches)
        return batches


def pad(rows: Sequence[Rendered], *, mask_prompt: bool) -> Batch:
    """Pads rows to one batch. Without `mask_prompt` every token but the first is a target."""
    starts = [row.answer if mask_prompt else 1 for row in rows]
    length = _rounded(max(len(row) for row in rows), TOKENS_STEP)
    width = _rounded(max(len(r) - s for r, s in zip(rows, starts, strict=True)), TARGETS_STEP)
    tokens = np.zeros((len(rows), length), np.int32)
    positions = np.zeros((len(rows), width), np.int32)
    targets = np.zeros((len(rows), width), np.int32)
    weights = np.zeros((len(rows), width), np.float32)
    for n, (row, start) in enumerate(zip(rows, starts, strict=True)):
        count = len(row) - start
        tokens[n, : len(row)] = row.tokens
        positions[n, :count] = np.arange(start - 1, len(row) - 1)
        targets[n, :count] = row.tokens[start:]
        weights[n, :count] = 1
    return Batch(tokens, positions, targets, weights)


def _rounded(length: int, step: int) -> int:
    return -(-length // step) * step
