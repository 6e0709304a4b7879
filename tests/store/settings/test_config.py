"""Settings: unknown ones are refused, every fault is reported, no secret is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from store.errors import ConfigError
from store.settings.config import Config, from_environment, load_config, parse_config
from store.settings.tasks import SplitSettings

MODELS = [{"model_name": "gpt-4o", "litellm_params": {"model": "openai/gpt-4o"}}]
SECRET = "sk-live-0123456789"


def config(**changes: Any) -> dict[str, Any]:
    return {"model_list": MODELS, **changes}


def test_the_smallest_config_has_all_defaults() -> None:
    found = parse_config(config())
    assert found.server.host == "127.0.0.1"
    assert found.task("anything") is found.task_defaults
    assert found.journal_dir == Path("understudy-data/journal")
    assert found.database_file.parent == found.routes_file.parent == found.data_dir


# ---- refused configs ---------------------------------------------------------------------------

UNKNOWN: list[tuple[str, dict[str, Any]]] = [
    ("colour", {"colour": "blue"}),
    ("server.prot", {"server": {"prot": 4100}}),
    ("server.keys.0.nmae", {"server": {"keys": [{"key": "k", "name": "n", "nmae": "x"}]}}),
    ("teacher.modle", {"teacher": {"modle": "gpt-4o"}}),
    ("journal.sync", {"journal": {"sync": True}}),
    ("store.memory", {"store": {"memory": "1GB"}}),
    ("scheduler.ingest", {"scheduler": {"ingest": 1}}),
    ("task_defaults.min_trace", {"task_defaults": {"min_trace": 200}}),
    ("task_defaults.split.test", {"task_defaults": {"split": {"test": 0.3}}}),
    ("task_defaults.amplify.n", {"task_defaults": {"amplify": {"n": 3}}}),
    ("task_defaults.train.lr", {"task_defaults": {"train": {"lr": 1e-4}}}),
    ("task_defaults.evaluate.rows", {"task_defaults": {"evaluate": {"rows": 1}}}),
    ("task_defaults.gate.alpha", {"task_defaults": {"gate": {"alpha": 0.05}}}),
    ("task_defaults.student.port", {"task_defaults": {"student": {"port": 1}}}),
]


@pytest.mark.parametrize(("place", "changes"), UNKNOWN, ids=[u[0] for u in UNKNOWN])
def test_an_unknown_setting_is_refused_by_its_name(place: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(config(**changes))
    assert f"{place}: Extra inputs are not permitted" in str(caught.value)


def test_an_unknown_setting_of_one_task_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"gate\.alpha"):
        parse_config(config(tasks={"triage": {"gate": {"alpha": 0.05}}}))


BAD: dict[str, dict[str, Any]] = {
    "no_models": {"model_list": []},
    "model_without_name": {"model_list": [{"litellm_params": {"model": "openai/x"}}]},
    "model_without_params": {"model_list": [{"model_name": "x"}]},
    "model_without_upstream": {"model_list": [{"model_name": "x", "litellm_params": {}}]},
    "no_such_teacher": {"teacher": {"model": "gpt-9"}},
    "open_to_the_world": {"server": {"host": "0.0.0.0"}},
    "port": {"server": {"port": 70_000}},
    "key_of_white_space": {"server": {"keys": [{"key": " \n", "name": "n"}]}},
    "key_with_a_line_end": {"server": {"keys": [{"key": "a\nb", "name": "n"}]}},
    "key_with_an_unknown_right": {"server": {"keys": [{"key": "k", "name": "n", "may": ["x"]}]}},
    "empty_key_name": {"server": {"keys": [{"key": "k", "name": ""}]}},
    "key_with_a_bad_tag": {"server": {"keys": [{"key": "k", "name": "n", "task": "A b"}]}},
    "bad_tag": {"tasks": {"../up": {}}},
    "tag_with_a_line_end": {"tasks": {"triage\n": {}}},
    "shares": {"task_defaults": {"split": {"train": 0.5, "calibration": 0.5, "heldout": 0.5}}},
    "threshold": {"task_defaults": {"gate": {"threshold": 1.0}}},
    "text_for_a_number": {"journal": {"segment_mb": "large"}},
    "task_that_is_no_mapping": {"tasks": {"triage": 5}},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_a_config_that_cannot_work_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        parse_config(config(**changes))


def test_every_fault_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(
            config(
                server={"port": -1, "log_level": "loud"},
                task_defaults={"min_traces": 1, "train": {"rank": 0}},
            ),
            where="my.yaml",
        )
    told = str(caught.value)
    assert told.startswith("my.yaml cannot be used:\n")
    faults = ("server.port", "server.log_level", "task_defaults.min_traces", "train.rank")
    assert all(fault in told for fault in faults)
    assert len(told.splitlines()) == 1 + len(faults)


def test_listening_outside_takes_keys() -> None:
    keys = [{"key": SECRET, "name": "app"}]
    assert parse_config(config(server={"host": "0.0.0.0", "keys": keys})).server.host == "0.0.0.0"
    for host in ("localhost", "::1"):
        assert parse_config(config(server={"host": host})).server.keys == []


def test_shares_that_add_up_are_taken() -> None:
    split = SplitSettings(train=0.6, calibration=0.1, heldout=0.3)
    assert split.train + split.calibration + split.heldout == pytest.approx(1)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse_config(config()).data_dir = Path("elsewhere")  # type: ignore[misc]


# ---- one task's settings -----------------------------------------------------------------------


def test_a_task_overlays_the_defaults_at_any_depth() -> None:
    found = parse_config(
        config(
            task_defaults={"min_traces": 50, "gate": {"threshold": 0.9, "min_coverage": 0.7}},
            tasks={"triage": {"gate": {"threshold": 0.98}, "paused": True}, "orders": {}},
        )
    )
    triage = found.task("triage")
    assert (triage.gate.threshold, triage.gate.min_coverage) == (0.98, 0.7)
    assert (triage.min_traces, triage.paused) == (50, True)
    assert found.task("orders") == found.task("unheard-of") == found.task_defaults
    assert found.task_defaults.gate.threshold == 0.9


def test_a_list_in_an_overlay_replaces_the_default() -> None:
    found = parse_config(
        config(
            task_defaults={"train": {"keys": ["q_proj", "v_proj"]}},
            tasks={"triage": {"train": {"keys": ["o_proj"]}}},
        )
    )
    assert found.task("triage").train.keys == ["o_proj"]


# ---- the environment ---------------------------------------------------------------------------


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_KEY", SECRET)
    monkeypatch.setenv("APP_PORT", "4242")
    found = parse_config(
        config(
            server={
                "port": "os.environ/APP_PORT",
                "keys": [{"key": "os.environ/APP_KEY", "name": "app"}],
            }
        )
    )
    assert found.server.port == 4242
    assert found.server.keys[0].key.get_secret_value() == SECRET


@pytest.mark.parametrize("value", [None, ""])
def test_an_unset_variable_is_reported_with_its_place(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("APP_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("APP_KEY", value)
    keys = [{"key": SECRET, "name": "one"}, {"key": "os.environ/APP_KEY", "name": "two"}]
    with pytest.raises(ConfigError) as caught:
        parse_config(config(server={"keys": keys}), where="my.yaml")
    assert str(caught.value) == (
        "my.yaml.server.keys[1].key: the environment variable APP_KEY is not set"
    )


def test_models_keep_their_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    params = {"model": "anthropic/claude", "api_key": "os.environ/NOT_SET"}
    found = parse_config(
        {
            "model_list": [{"model_name": "claude", "litellm_params": params}],
            "general_settings": {"master_key": "os.environ/NOT_SET"},
        }
    )
    assert found.model_list[0]["litellm_params"]["api_key"] == "os.environ/NOT_SET"
    assert found.general_settings == {"master_key": "os.environ/NOT_SET"}


def test_other_values_stay_as_they_are() -> None:
    value = {"a": [1, None, True, "os.environ is a module"], "b": {"c": 0.5}}
    assert from_environment(value, "config") == value


# ---- secrets -----------------------------------------------------------------------------------


def test_a_key_is_never_shown() -> None:
    found = parse_config(config(server={"keys": [{"key": SECRET, "name": "app"}]}))
    assert (
        SECRET not in repr(found) + str(found) + repr(found.server.keys) + found.model_dump_json()
    )


@pytest.mark.parametrize(
    "server",
    [
        {"keys": [{"key": SECRET, "name": ""}]},
        {"keys": [{"key": SECRET}]},
        {"keys": SECRET},
        {"keys": [SECRET]},
        {"keys": [{"key": {"value": SECRET}, "name": "app"}]},
        SECRET,
    ],
)
def test_no_error_shows_a_value_that_may_be_a_secret(server: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(config(server=server))
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


# ---- the file ----------------------------------------------------------------------------------


def test_a_config_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "model_list:\n- model_name: größe\n  litellm_params: {model: openai/x}\n"
        "data_dir: /tmp/somewhere\n",
        encoding="utf-8",
    )
    found = load_config(path)
    assert found.data_dir == Path("/tmp/somewhere")
    assert isinstance(found, Config)


def test_protected_labels_are_read_as_they_are_written(tmp_path: Path) -> None:
    """In YAML 1.1 a bare `yes` is true, and `null`, `1.0` and `on` are no texts either."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "model_list:\n- model_name: größe\n  litellm_params: {model: openai/x}\n"
        "task_defaults:\n  gate:\n    protect: [yes, No, on, 1.0, null, 'urgent=true']\n"
        "tasks:\n  triage:\n    paused: yes\n    gate: {protect: [n]}\n  other: {}\n",
        encoding="utf-8",
    )
    found = load_config(path)
    written = ["yes", "No", "on", "1.0", "null", "urgent=true"]
    assert found.task("other").gate.protect == written
    assert found.task("triage").gate.protect == ["n"]
    assert found.task("triage").paused is True


FILES: dict[str, tuple[bytes, str]] = {
    "not_yaml": (f"server: {{key: {SECRET}\nport: [".encode(), r"not valid YAML at line \d"),
    "a_list": (b"- one\n- two\n", "not a mapping"),
    "empty": (b"", "not a mapping"),
    "not_utf8": (b"data_dir: \xff\xfe", "cannot be read"),
    "python_object": (b"data_dir: !!python/object/apply:os.getcwd []", "not valid YAML"),
}


@pytest.mark.parametrize(("content", "told"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=told) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_missing_file_is_an_error_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; give one with --config"):
        load_config(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
