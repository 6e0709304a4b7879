"""The loss on a student's answers, and whether it would have given them.

Both look only at the places where a token of the answer is predicted. The head, the largest matrix
of a small base, is multiplied there alone where the base allows it: the same loss and the same
gradient as masking all logits, at a fraction of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from distill.train.batches import pad
from distill.train.rendering import Rendered

# (student, tokens (B, L), positions (B, C)) → logits (B, C, vocabulary)
LogitsAt = Callable[[Any, mx.array, mx.array], mx.array]

PROBE = 8  # tokens of the comparison that decides whether the head can be taken apart


def logits_of_all(student: Any, tokens: mx.array, positions: mx.array) -> mx.array:
    """Logits at some positions, for any base: computes them everywhere and picks."""
    return mx.take_along_axis(student(tokens), positions[..., None], axis=1)


def logits_of_some(student: Any, tokens: mx.array, positions: mx.array) -> mx.array:
    """Logits at some positions: only those are put through the head."""
    hidden = mx.take_along_axis(student.model(tokens), positions[..., None], axis=1)
    return _head(student)(hidden)


def choose_logits(student: Any) -> LogitsAt:
    """`logits_of_some` where it gives what the whole base gives, else `logits_of_all`.

    Tried out rather than known by name: some bases scale or cap the logits behind their head.
    """
    tokens = mx.arange(PROBE)[None]
    whole = logits_of_all(student, tokens, tokens)
    try:
        taken_apart = logits_of_some(student, tokens, tokens)
    except (AttributeError, TypeError, ValueError, IndexError):
        return logits_of_all
    same = taken_apart.shape == whole.shape and mx.allclose(taken_apart, whole, rtol=1e-4)
    return logits_of_some if same else logits_of_all


def answer_loss(logits_at: LogitsAt) -> Callable[..., tuple[mx.array, mx.array]]:
    """The loss for `mlx_lm.tuner`: mean cross-entropy a target, and the number of targets."""

    def loss(
        student: Any, tokens: mx.array, positions: mx.array, targets: mx.array, weights: mx.array
    ) -> tuple[mx.array, mx.array]:
        logits = logits_at(student, tokens, positions).astype(mx.float32)
        count = weights.sum()
        return (nn.losses.cross_entropy(logits, targets) * weights).sum() / count, count

    return loss


@dataclass(frozen=True, slots=True)
class Checked:
    """How a student does on rows it does not learn from."""

    loss: float  # mean cross-entropy an answer token, in nats
    agreement: float  # share of rows whose whole answer the student would give


def check(
    student: Any, rows: Sequence[Rendered], *, logits_at: LogitsAt, batch_size: int
) -> Checked:
    """Loss and agreement in one pass, dropout off. The student is left in evaluation mode.

    A greedy answer is the wanted one exactly when each of its tokens is the likeliest after the
    wanted ones before it, so agreement needs no generating.
    """
    student.eval()
    loss = places = 0.0
    right = 0
    by_length = sorted(rows, key=len)
    for first in range(0, len(by_length), batch_size):
        batch = pad(by_length[first : first + batch_size], mask_prompt=True)
        tokens, positions, targets, weights = batch.arrays()
        logits = logits_at(student, tokens, positions).astype(mx.float32)
        losses = (nn.losses.cross_entropy(logits, targets) * weights).sum()
        likeliest = mx.argmax(logits, axis=-1)
        mx.eval(losses, likeliest)
        loss += losses.item()
        places += float(batch.weights.sum())
        hit = (np.array(likeliest) == batch.targets) | (batch.weights == 0)
        right += int(hit.all(axis=1).sum())
    return Checked(loss / places, right / len(rows))


def _head(student: Any) -> Callable[[mx.array], mx.array]:
    """The base's output head: its own, or the embedding used backwards when the two are tied."""
    own = getattr(student, "lm_head", None)
    head: Callable[[mx.array], mx.array] = (
        own if own is not None else student.model.embed_tokens.as_linear
    )
    return head
