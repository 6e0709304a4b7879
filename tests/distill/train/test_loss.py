"""The loss on answers alone: the same value and gradient as with all logits."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm import load
from mlx_lm.tuner.utils import linear_to_lora_layers

from distill.train.batches import pad
from distill.train.loss import answer_loss, check, choose_logits, logits_of_all, logits_of_some
from distill.train.rendering import Rendered, Renderer
from tests.helpers.student_samples import BASE, items

LORA = {"rank": 4, "scale": 2.0, "dropout": 0.0}


def student(*, bits: int | None = None) -> tuple[Any, list[Rendered]]:
    """The base with non-zero adapters, and rows."""
    model, tokenizer = load(BASE)
    if bits is not None:
        nn.quantize(model, group_size=32, bits=bits)
    model.freeze()
    linear_to_lora_layers(model, -1, LORA)
    mx.random.seed(0)
    adapters = tree_flatten(model.trainable_parameters())
    model.load_weights([(n, mx.random.normal(v.shape) * 0.05) for n, v in adapters], strict=False)
    renderer = Renderer(tokenizer)
    return model, [renderer.row(i.messages, i.target) for i in items(5, seed=3)]


def gradient(model: Any, rows: list[Rendered], logits_at: Any) -> tuple[float, dict[str, Any]]:
    loss = nn.value_and_grad(model, answer_loss(logits_at))
    (value, _), grads = loss(model, *pad(rows, mask_prompt=True).arrays())
    return value.item(), dict(tree_flatten(grads))


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.slow
def test_fewer_logits_give_the_same_gradient(bits: int | None) -> None:
    model, rows = student(bits=bits)
    assert choose_logits(model) is logits_of_some
    long_way, short_way = (gradient(model, rows, f) for f in (logits_of_all, logits_of_some))
    assert short_way[0] == pytest.approx(long_way[0], rel=1e-4)
    assert short_way[1].keys() == long_way[1].keys()
    for name, value in long_way[1].items():
        assert np.abs(np.array(value)).max() > 0
        assert np.allclose(np.array(short_way[1][name]), np.array(value), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_the_loss_is_the_mean_over_answer_tokens() -> None:
    model, rows = student()
    by_hand, places = 0.0, 0
    for row in rows:
        logits = model(mx.array([row.tokens]))[0].astype(mx.float32)
        log_probabilities = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        for place in range(row.answer, len(row)):
            by_hand -= log_probabilities[place - 1, row.tokens[place]]
            places += 1
    loss, count = answer_loss(logits_of_some)(model, *pad(rows, mask_prompt=True).arrays())
    assert count.item() == places
    assert loss.item() == pytest.approx(by_hand / places, rel=1e-4)
    for batch_size in (1, 2, 5):
        checked = check(model, rows, logits_at=logits_of_some, batch_size=batch_size)
        assert checked.loss == pytest.approx(by_hand / places, rel=1e-4)


@pytest.mark.slow
def test_agreement_equals_greedy_decoding() -> None:
    model, rows = student()
    own = [Rendered(row.tokens[: row.answer], row.answer) for row in rows]
    decoded = []
    for row in own:
        tokens = list(row.tokens)
        for _ in range(4):
            tokens.append(int(mx.argmax(model(mx.array([tokens]))[0, -1]).item()))
        decoded.append(Rendered(tokens, row.answer))
    assert check(model, decoded, logits_at=logits_of_some, batch_size=2).agreement == 1.0
    spoilt = [Rendered([*r.tokens[:-1], (r.tokens[-1] + 1) % 1000], r.answer) for r in decoded[:2]]
    mixed = [*spoilt, *decoded[2:]]
    assert check(model, mixed, logits_at=logits_of_some, batch_size=3).agreement == 3 / 5


class Capped(nn.Module):  # type: ignore[misc]
    """A base that caps its logits after the head, as some do."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.model, self.args = base.model, base.args

    def __call__(self, tokens: mx.array) -> mx.array:
        return mx.tanh(self.model.embed_tokens.as_linear(self.model(tokens)) / 5) * 5


class Opaque(nn.Module):  # type: ignore[misc]
    """A base whose head cannot be applied separately."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.inner = base

    def __call__(self, tokens: mx.array) -> mx.array:
        return self.inner(tokens)


@pytest.mark.parametrize("kind", [Capped, Opaque])
@pytest.mark.slow
def test_a_base_with_a_special_head_computes_all_logits(kind: type) -> None:
    model, rows = student()
    other = kind(model)
    logits_at = choose_logits(other)
    assert logits_at is logits_of_all
    loss, _ = gradient(other, rows, logits_at)
    assert np.isfinite(loss)


@pytest.mark.slow
def test_an_untied_head_is_found() -> None:
    model, rows = student()
    weight = model.model.embed_tokens.weight

    class Untied(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model.model
            self.lm_head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)

        def __call__(self, tokens: mx.array) -> mx.array:
            return self.lm_head(self.model(tokens))

    untied = Untied()
    assert choose_logits(untied) is logits_of_some
    assert np.isfinite(gradient(untied, rows, logits_of_some)[0])
