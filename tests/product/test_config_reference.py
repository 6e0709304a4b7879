"""`config.yaml` is the reference of all settings: complete, right and explained.

That each one changes something is shown in test_settings_effect.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from store.errors import ConfigError
from store.settings.config import Config, load_config, parse_config
from store.settings.tasks import TaskSettings
from tests.helpers.config_leaves import leaves
from tests.helpers.paths import ROOT

REFERENCE = ROOT / "config.yaml"
# shown with an example because there is no default
EXAMPLES = {"model_list"}


def raw_reference() -> dict[str, Any]:
    found = yaml.safe_load(REFERENCE.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    return load_config(REFERENCE)


ALL = list(leaves(Config))


def at(raw: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        assert isinstance(raw, dict)
        assert name in raw, f"{'.'.join(path)} is missing"
        raw = raw[name]
    return raw


def plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


@pytest.mark.parametrize(("path", "default"), [pytest.param(p, d, id=".".join(p)) for p, d in ALL])
@pytest.mark.slow
def test_each_setting_is_listed_with_its_default(path: tuple[str, ...], default: Any) -> None:
    stands = at(raw_reference(), path)

    if path[0] not in EXAMPLES:
        assert stands == plain(default)
        assert type(stands) is type(plain(default)) or {type(stands), type(default)} <= {int, float}


def test_the_reference_has_no_unknown_settings() -> None:
    def paths(raw: dict[str, Any], *above: str) -> Iterator[tuple[str, ...]]:
        for name, value in raw.items():
            if isinstance(value, dict) and value:
                yield from paths(value, *above, name)
            else:
                yield (*above, name)

    assert set(paths(raw_reference())) == {path for path, _ in ALL}


def test_each_setting_is_explained_on_its_line() -> None:
    lines = REFERENCE.read_text(encoding="utf-8").splitlines()
    for path, _ in ALL:
        name = path[-1]
        indent = "  " * (len(path) - 1)
        found = [n for n, line in enumerate(lines) if line.startswith(f"{indent}{name}:")]
        assert found, f"{'.'.join(path)} is missing"
        for number in found:
            above = lines[number - 1].strip()
            assert " # " in lines[number] or above.startswith("#"), f"{lines[number]}: no comment"


def test_the_reference_can_be_used(reference: Config) -> None:
    assert reference == Config(model_list=reference.model_list)
    assert reference.model_list[0]["litellm_params"]["model"] == "openai/gpt-4.1"
    assert reference.task_defaults.train.base == "mlx-community/Qwen3-0.6B-4bit"


def test_its_examples_in_comments_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncommented, the examples of a key, of a task and of a LiteLLM teacher still pass."""
    monkeypatch.setenv("SUPPORT_APP_KEY", "a key")
    text = REFERENCE.read_text(encoding="utf-8")
    text = text.replace("  keys: []\n", "").replace("tasks: {}\n", "")
    for line, instead in (
        ("  # The keys of clients", "  keys: #"),
        ("  #   - key:", "    - key:"),
        ("  #     name: support-app", "      name: support-app"),
        ("  #     task: ticket-triage", "      task: ticket-triage"),
        ("# Settings of single tasks", "tasks: #"),
        ("#   ticket-triage:", "  ticket-triage:"),
        ("#     min_traces:", "    min_traces:"),
        ("#     gate:", "    gate:"),
        ("#       threshold:", "      threshold:"),
        ("#     train:", "    train:"),
        ("#       base:", "      base:"),
        ("  # - model_name: claude", "  - model_name: claude"),
        ("  #   litellm_params:", "    litellm_params:"),
        ("  #     model: anthropic", "      model: anthropic"),
        ("  #     api_key: os", "      api_key: os"),
    ):
        assert f"\n{line}" in text, f"{line}… is no longer there"
        text = text.replace(f"\n{line}", f"\n{instead}", 1)

    config = parse_config(yaml.safe_load(text))

    assert config.server.keys[0].task == "ticket-triage"
    assert config.task("ticket-triage").gate.threshold == 0.98
    assert config.task("ticket-triage").train.base == "mlx-community/Qwen3-1.7B-4bit"
    assert [entry["model_name"] for entry in config.model_list] == ["gpt-4.1", "claude"]


@pytest.mark.parametrize(
    ("path", "near"),
    [
        (("treshold",), None),
        (("serve",), "server"),
        (("server", "prot"), "port"),
        (("server", "limits", "in_fligth"), "in_flight"),
        (("task_defaults", "train", "rnak"), "rank"),
        (("privacy", "store_flase"), "store_false"),
        (("tasks", "triage", "gate", "treshold"), "threshold"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_name(
    path: tuple[str, ...], near: str | None
) -> None:
    raw = raw_reference()
    inner = raw
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
    inner[path[-1]] = 1

    with pytest.raises(ConfigError, match=path[-1]) as caught:
        parse_config({**raw, "model_list": [model("openai/x")]})
    told = f"{path[-1]}: did you mean {near}?" if near else "did you mean"
    assert (told in str(caught.value)) == (near is not None)


def model(name: str) -> dict[str, Any]:
    return {"model_name": "teacher", "litellm_params": {"model": name}}


def test_a_task_may_change_each_setting_of_its_defaults() -> None:
    """`tasks` overlays `task_defaults` at every depth, and changes nothing else."""
    base = Config(model_list=[model("openai/x")])
    for path, default in leaves(TaskSettings):
        other = different(path[-1], default)
        overlay: dict[str, Any] = {path[-1]: other}
        for name in reversed(path[:-1]):
            overlay = {name: overlay}
        if path[0] == "split":  # its shares must add up
            overlay = {"split": {"train": 0.6, "calibration": 0.25, "heldout": 0.15}}
            other = overlay["split"][path[-1]]
        config = Config(model_list=base.model_list, tasks={"triage": overlay})

        changed: Any = config.task("triage")
        for name in path:
            changed = getattr(changed, name)
        assert changed == other
        assert config.task("another") == base.task_defaults


def different(name: str, default: Any) -> Any:
    special = {
        "keys": ["self_attn.q_proj"],
        "scorer": "exact",
        "base": "another",
        "kind": "label",
        "rubric": "another",
        "shares": [0.5],
        "protect": ["yes"],
    }
    if name in special:
        return special[name]
    if isinstance(default, bool):
        return not default
    if default is None:
        return 1
    return default + 1 if isinstance(default, int) else default * 0.99 + 0.001
