"""Settings that fit the base student in `demo/base/weights`: a million parameters, on a CPU.

A base this small wants a higher rank and learning rate than the field's usual ones, which the
defaults of `config.yaml` keep to.
"""

from __future__ import annotations

from pathlib import Path

from store.task_settings import EvaluateSettings, TaskSettings, TrainSettings

BASE = Path(__file__).parent / "base" / "weights"


def tiny_train() -> TrainSettings:
    """How the tiny base is trained."""
    return TrainSettings(
        base=str(BASE),
        rank=32,
        scale=2.0,
        learning_rate=5e-3,
        batch_size=4,
        epochs=4,
        validations=3,
        max_seq_length=1024,
        parallel=2,  # each training uses one core
    )


def tiny_student() -> TaskSettings:
    """All settings of a task whose student is the tiny base."""
    return TaskSettings(train=tiny_train(), evaluate=EvaluateSettings(concurrency=4))
