"""A config written for former names of settings still works, with a warning for each."""

from __future__ import annotations

from typing import Any

import pytest

from store.errors import ConfigError
from store.settings.config import Config, parse_config
from store.settings.renamed import RENAMED, RENAMED_IN_TASKS
from store.settings.tasks import TaskSettings
from tests.helpers.config_leaves import leaves

MODELS = [{"model_name": "teacher", "litellm_params": {"model": "openai/x", "api_key": "k"}}]
OTHER_VALUES: dict[str, Any] = {
    "retention.retrain_forgotten": True,
    "rollout.min_comparisons": 7,
    "gate.min_slice_rows": 7,
}
PLACES = [
    *(((), former, name) for former, name in RENAMED.items()),
    *((("task_defaults",), former, name) for former, name in RENAMED_IN_TASKS.items()),
    *((("tasks", "some.tag"), former, name) for former, name in RENAMED_IN_TASKS.items()),
]
PARAMS = [pytest.param(*place, id=".".join([*place[0], place[1]])) for place in PLACES]


def nested(path: list[str], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return value


def config(above: tuple[str, ...], name: str, value: Any) -> dict[str, Any]:
    return {"model_list": MODELS, **nested([*above, *name.split(".")], value)}


@pytest.mark.parametrize(("above", "former", "name"), PARAMS)
def test_a_former_name_has_its_effect_and_a_warning(
    above: tuple[str, ...], former: str, name: str
) -> None:
    value = OTHER_VALUES.get(name, 0.31)
    raw = config(above, former, value)

    by_former = parse_config(raw)
    by_name = parse_config(config(above, name, value))

    assert by_former.model_dump() == by_name.model_dump()
    assert by_former.model_dump() != Config(model_list=MODELS).model_dump()
    assert len(by_former.warnings) == 1
    assert ".".join([*above, former]) in by_former.warnings[0]
    assert ".".join([*above, name]) in by_former.warnings[0]
    assert by_name.warnings == ()
    assert raw == config(above, former, value)  # the argument is unchanged


@pytest.mark.parametrize(("above", "former", "name"), PARAMS)
def test_both_names_at_once_are_refused(above: tuple[str, ...], former: str, name: str) -> None:
    section, _, key = former.rpartition(".")
    values = {key: 0.3, name.rpartition(".")[2]: 0.3}
    raw = {"model_list": MODELS, **nested([*above, section], values)}

    with pytest.raises(ConfigError) as caught:
        parse_config(raw, where="my.yaml")

    assert str(caught.value).startswith("my.yaml cannot be used:\n")
    assert ".".join([*above, former]) in str(caught.value)
    assert ".".join([*above, name]) in str(caught.value)


def test_a_task_may_use_the_current_name_where_the_defaults_use_the_former() -> None:
    raw = {
        "model_list": MODELS,
        "task_defaults": {"audit": {"first": 0.3}},
        "tasks": {"triage": {"audit": {"first_share": 0.4}}},
    }

    found = parse_config(raw)

    assert found.task("triage").audit.first_share == 0.4
    assert found.task("another").audit.first_share == 0.3


@pytest.mark.parametrize(
    "raw",
    [
        {"retention": None},
        {"retention": {"retrain_marked": "perhaps"}},
        {"task_defaults": []},
        {"tasks": {"triage": 5}},
        {"tasks": ["triage"]},
        {"audit": {"first": 0.3}},
        {"task_defaults": {"retention": {"retrain_marked": True}}},
    ],
    ids=str,
)
def test_former_names_excuse_no_other_fault(raw: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        parse_config({"model_list": MODELS, **raw})


def test_each_current_name_is_a_setting_and_no_former_name_is() -> None:
    settings = {".".join(path) for path, _ in leaves(Config)}
    of_tasks = {".".join(path) for path, _ in leaves(TaskSettings)}

    assert set(RENAMED.values()) <= settings
    assert set(RENAMED_IN_TASKS.values()) <= of_tasks
    assert not RENAMED.keys() & settings
    assert not RENAMED_IN_TASKS.keys() & of_tasks
