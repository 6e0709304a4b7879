"""The training subprocess: one LoRA adapter, by `mlx_lm.tuner`.

    python -m store.process.leash distill.train.mlx_launch distill.train.trainer CONFIG.yaml

CONFIG.yaml has `mlx_lm lora`'s own keys (see distill.train.config.training_config); `python -m
mlx_lm lora -c CONFIG.yaml` trains a similar adapter. The differences: batches lose no row, the head
is applied to answers only, and the checkpoint with the best validation loss is kept.

It reports its progress as JSON lines on standard output. Everything else, including mlx_lm's
output, goes to standard error. Error messages contain no row's contents.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import yaml
from mlx.utils import tree_flatten
from mlx_lm import load
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, train
from mlx_lm.tuner.utils import build_schedule, linear_to_lora_layers

from distill.train.batches import Batches
from distill.train.loss import Checked, answer_loss, check, choose_logits
from distill.train.rendering import Rendered, Renderer
from store.jsontext import JsonObject
from store.process.memory import peak_mb

ADAPTER = "adapters.safetensors"
LAST = "last.safetensors"  # mlx_lm's own final weights, deleted once the best ones are known
CHECK_FACTOR = 4  # rows checked at once for each trained at once: without gradients they fit

Say = Callable[..., None]


def main(arguments: list[str]) -> None:
    """Trains as the config file says."""
    if len(arguments) != 1:
        sys.exit("usage: python -m distill.train.trainer CONFIG.yaml")
    config = yaml.safe_load(Path(arguments[0]).read_text(encoding="utf-8"))
    events = sys.stdout

    def say(event: str, **numbers: Any) -> None:
        events.write(json.dumps({"event": event, **numbers}) + "\n")
        events.flush()

    with contextlib.redirect_stdout(sys.stderr):
        run(config, say)


def run(config: JsonObject, say: Say) -> None:
    """Loads the base, trains an adapter on it, and leaves the best one in `adapter_path`."""
    began = time.perf_counter()
    mx.random.seed(config["seed"])
    student, tokenizer = load(config["model"])
    if mx.default_device().type == mx.DeviceType.cpu:
        student.set_dtype(mx.float32)  # a CPU multiplies 16-bit floats no faster
    renderer, data = Renderer(tokenizer), Path(config["data"])
    train_rows, left_out = read_rows(data / "train.jsonl", renderer, config["max_seq_length"])
    valid_rows, valid_left_out = read_rows(data / "valid.jsonl", renderer, config["max_seq_length"])
    trainable = add_lora(student, config)
    say(
        "start",
        train_rows=len(train_rows),
        valid_rows=len(valid_rows),
        left_out=left_out,
        valid_left_out=valid_left_out,
        trainable_parameters=trainable,
    )

    adapter = Path(config["adapter_path"])
    adapter.mkdir(parents=True, exist_ok=True)
    (adapter / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
    logits_at = choose_logits(student)
    batches = Batches(mask_prompt=config["mask_prompt"], seed=config["seed"])
    watch = Watch(
        student,
        config,
        check=lambda: check(
            student,
            valid_rows,
            logits_at=logits_at,
            batch_size=CHECK_FACTOR * config["batch_size"],
        ),
        tokens=lambda: batches.tokens,
        say=say,
    )
    train(
        student,
        optim.Adam(
            learning_rate=build_schedule(config["lr_schedule"]),
            **config["optimizer_config"]["adam"],
        ),
        train_rows,
        None,  # `watch` validates: mlx_lm does it before the reported step, and not after the last
        TrainingArgs(
            batch_size=config["batch_size"],
            iters=config["iters"],
            steps_per_report=config["steps_per_report"],
            steps_per_save=config["iters"] + 1,  # watch saves
            max_seq_length=config["max_seq_length"],
            adapter_file=str(adapter / LAST),
        ),
        loss=answer_loss(logits_at),
        iterate_batches=batches,
        training_callback=watch,
    )
    (adapter / LAST).unlink()
    say(
        "end",
        best_iteration=watch.best_iteration,
        best_val_loss=watch.best.loss,
        valid_agreement=watch.best.agreement,
        tokens_per_second=round(batches.tokens / watch.seconds, 1),
        seconds=round(time.perf_counter() - began, 3),
        peak_mb=round(max(peak_mb(), mx.get_peak_memory() / 2**20)),
    )


class Watch(TrainingCallback):  # type: ignore[misc] # mlx_lm has no type information
    """Called by `mlx_lm.tuner.train` every few iterations: reports, validates, saves the best."""

    def __init__(
        self,
        student: Any,
        config: JsonObject,
        *,
        check: Callable[[], Checked],
        tokens: Callable[[], int],
        say: Say,
    ) -> None:
        self._student, self._config = student, config
        self._check, self._tokens, self._say = check, tokens, say
        self._adapter = Path(config["adapter_path"]) / ADAPTER
        self.best, self.best_iteration = Checked(math.inf, 0.0), 0
        self.seconds = 0.0  # spent on training alone
        self._resumed_at, self._reported_tokens = time.perf_counter(), 0

    def on_train_loss_report(self, train_info: JsonObject) -> None:
        """After `steps_per_report` iterations, and after the last."""
        iteration, loss = train_info["iteration"], float(train_info["train_loss"])
        took, tokens = (
            time.perf_counter() - self._resumed_at,
            self._tokens() - self._reported_tokens,
        )
        self.seconds += took
        _refuse_divergence(loss, iteration)
        self._say(
            "train", iteration=iteration, loss=loss, tokens_per_second=round(tokens / took, 1)
        )
        if iteration % self._config["steps_per_eval"] == 0 or iteration == self._config["iters"]:
            self._keep_best(iteration)
        self._resumed_at, self._reported_tokens = time.perf_counter(), self._tokens()

    def _keep_best(self, iteration: int) -> None:
        checked = self._check()
        self._student.train()  # checking has switched dropout off
        _refuse_divergence(checked.loss, iteration)
        better = checked.loss < self.best.loss
        if better:
            self.best, self.best_iteration = checked, iteration
            part = self._adapter.with_name("part.safetensors")
            mx.save_safetensors(str(part), dict(tree_flatten(self._student.trainable_parameters())))
            part.replace(self._adapter)
        self._say(
            "validate",
            iteration=iteration,
            loss=checked.loss,
            agreement=checked.agreement,
            best=better,
        )


def add_lora(student: Any, config: JsonObject) -> int:
    """Freezes the base and adds adapters to its layers. Returns the parameters to train."""
    layers, keys = config["num_layers"], config["lora_parameters"].get("keys")
    if layers > len(student.layers):
        sys.exit(f"train.layers is {layers}, but the base has only {len(student.layers)} layers")
    student.freeze()
    linear_to_lora_layers(student, layers, config["lora_parameters"])
    trainable = sum(value.size for _, value in tree_flatten(student.trainable_parameters()))
    if not trainable:
        sys.exit(f"train.keys {keys} name no layer of the base; they are like self_attn.q_proj")
    return int(trainable)


def read_rows(file: Path, renderer: Renderer, max_tokens: int) -> tuple[list[Rendered], int]:
    """The rows of a file as tokens, and how many were left out.

    Left out are rows of more than `max_tokens` tokens, which would teach an answer without its end,
    and rows that the base's chat template rejects.
    """
    rows, left_out = [], 0
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            messages = json.loads(line)["messages"]
            try:
                row = renderer.row(messages[:-1], messages[-1]["content"])
            except Exception:  # a template's error may quote the row, and is of any type
                left_out += 1
                continue
            if len(row) > max_tokens:
                left_out += 1
            else:
                rows.append(row)
    if not rows:
        sys.exit(f"{file.name}: none of {left_out} rows fits into {max_tokens} tokens")
    return rows, left_out


def _refuse_divergence(loss: float, iteration: int) -> None:
    if not math.isfinite(loss):
        sys.exit(
            f"the loss is not a number after {iteration} iterations: lower train.learning_rate "
            "or train.scale"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
