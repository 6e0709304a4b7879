"""Makes the base student again: `python -m demo.base.pretrain --out demo/base/weights`.

Tokenizer, weights and configuration come out of fixed seeds and generated text. Muon moves the
matrices and AdamW the embeddings and norms: at this size that needs several times fewer steps than
AdamW alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from distill.train import blas

os.environ.setdefault(blas.VARIABLE, blas.WHEEL)
BLAS = blas.enable()  # before MLX is imported

import mlx.core as mx  # noqa: E402
from mlx import nn, optimizers  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from demo.base import batches, measure, student, tokenizer  # noqa: E402

STEPS = 5_000
VOCABULARY = 1_536
SEED = 0

MUON_RATE, ADAM_RATE = 0.02, 3e-3
WARMUP = 100  # steps
LAST_RATE = 0.05  # of the highest, where the cosine ends
EASY_PART = 0.1  # of the steps: the curriculum

REPORT_EVERY, SAVE_EVERY = 100, 500


def pretrain(out: Path, steps: int, vocabulary: int, seed: int) -> measure.Score:
    """Train from nothing, saving into `out` as it goes; returns the score on held-out examples."""
    bpe = tokenizer.train(vocabulary, seed)
    tokenizer.save(bpe, out)
    model = student.build(bpe.get_vocab_size(), seed)
    optimizer = _optimizer()
    gradient = nn.value_and_grad(model, _loss)
    step = 0
    stream = batches.stream(bpe, seed + 1, easy=lambda: step < EASY_PART * steps)
    parameters = sum(weight.size for _, weight in tree_flatten(model.parameters()))
    print(f"{parameters:,} parameters, {bpe.get_vocab_size()} tokens, BLAS {BLAS}", flush=True)
    started, losses, tokens = time.process_time(), [], 0
    for step in range(1, steps + 1):
        _set_rates(optimizer, step, steps)
        ids, weights = next(stream)
        loss, gradients = gradient(model, ids, weights)
        gradients, _ = optimizers.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        mx.eval(model.state, optimizer.state, loss)
        losses.append(loss.item())
        tokens += ids.size
        if step % REPORT_EVERY == 0:
            mean, spent = sum(losses) / len(losses), time.process_time() - started
            print(f"step {step} loss {mean:.4f} tokens {tokens:,} CPU {spent:.0f} s", flush=True)
            losses.clear()
        if step % SAVE_EVERY == 0:
            save(model, out)
            print("\n".join(measure.score(model, bpe, 480).lines()), flush=True)
    save(model, out)
    return measure.score(model, bpe, 2_000)


def save(model: Any, out: Path) -> None:
    """Write configuration and weights; a reader never sees half-written weights."""
    config = json.dumps(student.config(model.args.vocab_size), indent=1) + "\n"
    (out / "config.json").write_text(config, encoding="utf-8")
    part = out / "part.safetensors"
    mx.save_safetensors(
        str(part), dict(tree_flatten(model.parameters())), metadata={"format": "mlx"}
    )
    part.replace(out / "model.safetensors")


def _optimizer() -> Any:
    return optimizers.MultiOptimizer(
        [
            optimizers.Muon(MUON_RATE, momentum=0.95, weight_decay=0.0),
            optimizers.AdamW(ADAM_RATE, betas=[0.9, 0.98], weight_decay=0.0),
        ],
        [lambda name, weight: weight.ndim == 2 and "embed" not in name],
    )


def _set_rates(optimizer: Any, step: int, steps: int) -> None:
    """Linear warm-up times a cosine; the optimizers keep their ratio."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    factor = min(1.0, step / WARMUP) * (LAST_RATE + (1 - LAST_RATE) * cosine)
    muon, adam = optimizer.optimizers
    muon.learning_rate = mx.array(MUON_RATE * factor)
    adam.learning_rate = mx.array(ADAM_RATE * factor)


def _loss(model: Any, ids: mx.array, weights: mx.array) -> Any:
    """Weighted mean of the next tokens' cross entropy."""
    losses = nn.losses.cross_entropy(model(ids[:, :-1]), ids[:, 1:])
    return (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.base.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the weights")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY, help="tokens")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--score-only", action="store_true", help="measure what is in --out")
    return parser.parse_args()


def main() -> None:
    """The command."""
    arguments = _arguments()
    if arguments.score_only:
        from mlx_lm import load  # noqa: PLC0415

        model, *_ = load(str(arguments.out))
        bpe = Tokenizer.from_file(str(arguments.out / "tokenizer.json"))
        result = measure.score(model, bpe, 2_000)
    else:
        out, steps, seed = arguments.out, arguments.steps, arguments.seed
        result = pretrain(out, steps, arguments.vocabulary, seed)
    print("\n".join(result.lines()))


if __name__ == "__main__":
    main()
