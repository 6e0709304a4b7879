"""Settings that fit the base student in `demo/base/weights`: a million parameters, on a CPU.

A base this small needs a higher rank and learning rate than usual, as in `config.yaml`.
"""

from __future__ import annotations

from pathlib import Path

from store.settings.tasks import EvaluateSettings, TaskSettings, TrainSettings

BASE = Path(__file__).parent / "weights"


MANY_ROWS = 1500  # requests, from which more and larger steps are better


def tiny_train(requests: int = 0) -> TrainSettings:
    """Training settings of the tiny base, by the number of logged requests."""
    many = requests >= MANY_ROWS
    return TrainSettings(
        base=str(BASE),
        rank=32,
        scale=2.0,
        learning_rate=3e-3 if many else 5e-3,
        batch_size=8 if many else 4,
        epochs=5 if many else 4,
        validations=3,
        max_seq_length=1024,
        parallel=2,  # each training uses one core
    )


def tiny_student(requests: int = 0) -> TaskSettings:
    """All settings of a task whose student is the tiny base."""
    return TaskSettings(train=tiny_train(requests), evaluate=EvaluateSettings(concurrency=4))
