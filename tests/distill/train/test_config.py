"""The training config: mlx_lm's own keys, and an effect of every setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from distill.train.config import training_config
from store.settings.tasks import TrainSettings

# another value for each setting, and where it shows in the config
CHANGES: dict[str, tuple[Any, str]] = {
    "rank": (8, "lora_parameters"),
    "scale": (10.0, "lora_parameters"),
    "dropout": (0.1, "lora_parameters"),
    "keys": (["self_attn.q_proj"], "lora_parameters"),
    "layers": (2, "num_layers"),
    "learning_rate": (1e-3, "learning_rate"),
    "warmup": (0.5, "lr_schedule"),
    "batch_size": (2, "batch_size"),
    "epochs": (2, "iters"),
    "iterations": (7, "iters"),
    "max_iterations": (9, "iters"),
    "validations": (2, "steps_per_eval"),
    "max_seq_length": (128, "max_seq_length"),
    "mask_prompt": (False, "mask_prompt"),
    "seed": (5, "seed"),
}
# these are not about how an adapter is trained: which base (given beside the settings), for how
# long at most (the parent's affair), and how many trainings there are (the pipeline's)
ELSEWHERE = {"base", "timeout_s", "compare", "parallel"}


def config(settings: TrainSettings, rows: int = 100) -> dict[str, Any]:
    return training_config(settings, base="some/base", data=Path("d"), adapter=Path("a"), rows=rows)


def test_every_train_setting_is_in_the_config() -> None:
    assert CHANGES.keys() | ELSEWHERE == TrainSettings.model_fields.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_changes_the_training(name: str) -> None:
    value, shows_in = CHANGES[name]
    before, after = config(TrainSettings()), config(TrainSettings(**{name: value}))
    assert before[shows_in] != after[shows_in]


def test_mlx_lm_accepts_the_config() -> None:
    from mlx_lm.lora import CONFIG_DEFAULTS  # noqa: PLC0415 - slow to import

    made = config(TrainSettings())
    assert made.keys() <= CONFIG_DEFAULTS.keys()
    assert (made["model"], made["data"], made["adapter_path"]) == ("some/base", "d", "a")
    assert yaml.safe_load(yaml.safe_dump(made)) == made
    assert "keys" not in made["lora_parameters"]  # all linear layers


@pytest.mark.parametrize(
    ("changes", "rows", "expected"),
    [
        ({"epochs": 4, "batch_size": 4}, 100, 100),
        ({"epochs": 0.5, "batch_size": 8}, 100, 6),
        ({"epochs": 1, "batch_size": 64}, 3, 1),  # at least one
        ({"epochs": 100, "max_iterations": 500}, 1000, 500),
        ({"iterations": 3000, "max_iterations": 500}, 1000, 3000),  # set, so meant
    ],
)
def test_iterations_follow_from_epochs_up_to_a_limit(
    changes: dict[str, Any], rows: int, expected: int
) -> None:
    assert config(TrainSettings(**changes), rows)["iters"] == expected


@pytest.mark.parametrize("iters", [1, 3, 8, 9, 20, 99, 400, 1350])
@pytest.mark.parametrize("validations", [1, 3, 8])
def test_validations_fall_on_reports(iters: int, validations: int) -> None:
    made = config(TrainSettings(iterations=iters, validations=validations))
    assert made["steps_per_eval"] % made["steps_per_report"] == 0
    assert 1 <= made["steps_per_report"] <= 10
    times = -(-iters // made["steps_per_eval"])
    assert times <= validations
    assert times >= min(iters, validations) / 2
