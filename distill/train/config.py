"""From our training settings to the config of `mlx_lm lora`."""

from __future__ import annotations

from math import ceil
from pathlib import Path

from store.jsontext import JsonObject
from store.settings.tasks import TrainSettings

REPORT_EVERY = 10  # iterations, about
FINAL_RATE = 0.05  # of the learning rate, where the cosine ends
WARMUP_START = 0.05  # of the learning rate, where the warm-up starts


def iterations(settings: TrainSettings, rows: int) -> int:
    """How many batches to train on: as set, or those of the epochs, up to a limit."""
    if settings.iterations is not None:
        return settings.iterations
    return min(settings.max_iterations, max(1, round(settings.epochs * rows / settings.batch_size)))


def training_config(
    settings: TrainSettings, *, base: str, data: Path, adapter: Path, rows: int
) -> JsonObject:
    """The config of `mlx_lm lora` for these settings. `rows`: the number of training rows."""
    iters = iterations(settings, rows)
    warmup = round(settings.warmup * iters)
    # a validation coincides with a report: distill.train.trainer validates in the report callback
    between = ceil(iters / settings.validations)
    report = ceil(between / ceil(between / REPORT_EVERY))
    lora: JsonObject = {
        "rank": settings.rank,
        "scale": settings.scale,
        "dropout": settings.dropout,
    }
    if settings.keys is not None:
        lora["keys"] = list(settings.keys)
    rate = settings.learning_rate
    return {
        "model": base,
        "train": True,
        "data": str(data),
        "adapter_path": str(adapter),
        "fine_tune_type": "lora",
        "num_layers": settings.layers,
        "lora_parameters": lora,
        "optimizer": "adam",
        "optimizer_config": {"adam": {"betas": [0.9, 0.98], "bias_correction": True}},
        "learning_rate": rate,
        "lr_schedule": {
            "name": "cosine_decay",
            "arguments": [rate, max(1, iters - warmup), rate * FINAL_RATE],
            "warmup": warmup,
            "warmup_init": rate * WARMUP_START,
        },
        "batch_size": settings.batch_size,
        "iters": iters,
        "steps_per_report": report,
        "steps_per_eval": report * ceil(between / report),
        "val_batches": -1,
        "save_every": iters,
        "max_seq_length": settings.max_seq_length,
        "mask_prompt": settings.mask_prompt,
        "seed": settings.seed,
    }
