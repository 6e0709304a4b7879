"""The loss on a student's answers, and its greedy agreement with them.

Both use only the positions that predict a token of the answer. If the base allows it, its head, the
largest matrix of a small base, is applied at these positions alone: the same loss and gradient as
with masked logits, for a fraction of the work.
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

PROBE = 8  # tokens of the test whether the head can be applied separately


def logits_of_all(student: Any, tokens: mx.array, positions: mx.array) -> mx.array:
    """Logits at some positions, for any base: computes all of them and selects."""
    return mx.take_along_axis(student(tokens), positions[..., None], axis=1)


def logits_of_some(student: Any, tokens: mx.array, positions: mx.array) -> mx.array:
    """Logits at some positions: the head is applied to those alone."""
    hidden = mx.take_along_axis(student.model(tokens), positions[..., None], axis=1)
    return _head(student)(hidden)


def choose_logits(student: Any) -> LogitsAt:
    """`logits_of_some` if it gives the logits of the whole base, else `logits_of_all`.

    A test and no list of names: some bases scale or cap the logits after their head.
    """
    tokens = mx.arange(PROBE)[None]
    whole = logits_of_all(student, tokens, tokens)
    try:
        separate = logits_of_some(student, tokens, tokens)
    except (AttributeError, TypeError, ValueError, IndexError):
        return logits_of_all
    same = separate.shape == whole.shape and mx.allclose(separate, whole, rtol=1e-4)
    return logits_of_some if same else logits_of_all


def answer_loss(logits_at: LogitsAt) -> Callable[..., tuple[mx.array, mx.array]]:
    """The loss for `mlx_lm.tuner`: mean cross-entropy per target, and the number of targets."""

    def loss(
        student: Any, tokens: mx.array, positions: mx.array, targets: mx.array, weights: mx.array
    ) -> tuple[mx.array, mx.array]:
        logits = logits_at(student, tokens, positions).astype(mx.float32)
        count = weights.sum()
        return (nn.losses.cross_entropy(logits, targets) * weights).sum() / count, count

    return loss


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a student on rows that it is not trained on."""

    loss: float  # mean cross-entropy per answer token, in nats
    agreement: float  # share of rows whose whole answer greedy decoding would give


def check(
    student: Any, rows: Sequence[Rendered], *, logits_at: LogitsAt, batch_size: int
) -> Checked:
    """Loss and agreement in one pass, dropout off. Leaves the student in evaluation mode.

    Greedy decoding gives the expected answer exactly when each of its tokens is the likeliest after
    the expected ones before it, so no text has to be generated.
    """
    student.eval()
    loss = count = 0.0
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
        count += float(batch.weights.sum())
        hit = (np.array(likeliest) == batch.targets) | (batch.weights == 0)
        right += int(hit.all(axis=1).sum())
    return Checked(loss / count, right / len(rows))


def _head(student: Any) -> Callable[[mx.array], mx.array]:
    """The base's output head: its own layer, or the transposed embedding when the two are tied."""
    own = getattr(student, "lm_head", None)
    head: Callable[[mx.array], mx.array] = (
        own if own is not None else student.model.embed_tokens.as_linear
    )
    return head
