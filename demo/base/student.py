"""The base student's shape: Qwen3 in small, so that mlx_lm loads, adapts and serves it as it is."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3

from store.jsontext import JsonObject

HIDDEN, LAYERS, HEADS, KEY_VALUE_HEADS, MLP = 128, 4, 4, 2, 384


def config(vocabulary: int) -> JsonObject:
    """The content of `config.json`."""
    return {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "intermediate_size": MLP,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "head_dim": HIDDEN // HEADS,
        "rms_norm_eps": 1e-6,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "torch_dtype": "float32",  # bf16 is no faster on a CPU, and less exact
    }


def build(vocabulary: int, seed: int) -> Any:
    """A student with fresh weights, each residual branch scaled down by the depth."""
    mx.random.seed(seed)
    model = qwen3.Model(qwen3.ModelArgs.from_dict(config(vocabulary)))
    fresh = []
    for name, weight in tree_flatten(model.parameters()):
        if weight.ndim != 2:
            continue
        scale = 0.02 * math.sqrt(256 / HIDDEN) if "embed" in name else weight.shape[1] ** -0.5
        if "o_proj" in name or "down_proj" in name:
            scale /= math.sqrt(2 * LAYERS)
        fresh.append((name, mx.random.normal(weight.shape) * scale))
    model.load_weights(fresh, strict=False)
    return model
