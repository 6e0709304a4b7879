"""Which children follow a changed config."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cli.serve.changes import CONTROL_PLANE_ONLY, FIXED, PROXIES_ONLY, Changes, changes
from store.settings.config import Config, parse_config
from tests.helpers.effects import lay
from tests.helpers.paths import ROOT

DIRECT = {"model": "openai/rules", "api_base": "http://127.0.0.1:9/v1", "api_key": "sk-one"}
THROUGH = {"model": "hosted_vllm/far", "api_base": "http://127.0.0.1:9/v1"}
KEY = {"key": "sk-client", "name": "app"}


def deployment(params: dict[str, Any], name: str = "teacher") -> dict[str, Any]:
    return {"model_name": name, "litellm_params": params}


def config(**settings: Any) -> Config:
    raw: dict[str, Any] = {"model_list": [deployment(DIRECT)]}
    for path, value in settings.items():
        lay(raw, path.replace("__", "."), value)
    return parse_config(raw)


@pytest.mark.parametrize(
    ("settings", "named", "proxies", "control_plane", "litellm"),
    [
        ({}, (), False, False, False),
        ({"server__workers": 1}, (), False, False, False),  # its default
        ({"server__workers": 2}, ("server.workers",), True, False, False),
        ({"server__keys": [KEY]}, ("server.keys",), True, False, False),
        ({"server__log_level": "debug"}, ("server.log_level",), True, False, False),
        ({"journal__fsync": True}, ("journal.fsync",), True, False, False),
        ({"teacher__read_timeout_s": 5}, ("teacher.read_timeout_s",), True, False, False),
        ({"teacher__model": "teacher"}, ("teacher.model",), True, True, False),
        (
            {"model_list": [deployment({**DIRECT, "api_key": "sk-two"})]},
            ("model_list",),
            True,
            True,  # it asks the teachers too
            False,
        ),
        ({"model_list": [deployment(THROUGH)]}, ("model_list",), True, True, True),
        ({"tasks__triage__paused": True}, ("tasks.triage",), False, True, False),
        (
            {"store__threads": 2, "task_defaults__gate__threshold": 0.9},
            ("store.threads", "task_defaults.gate.threshold"),
            False,
            True,
            False,
        ),
    ],
)
def test_a_changed_setting_replaces_the_children_that_read_it(
    settings: dict[str, Any],
    named: tuple[str, ...],
    proxies: bool,
    control_plane: bool,
    litellm: bool,
) -> None:
    expected = Changes(named, (), proxies, control_plane, litellm)
    assert changes(config(), config(**settings)) == expected
    there_and_back = changes(config(**settings), config())
    assert (there_and_back.proxies, there_and_back.control_plane) == (proxies, control_plane)


def test_litellm_is_replaced_only_for_its_own_settings() -> None:
    before = config(model_list=[deployment(THROUGH)])
    for settings, follows in (
        ({"server__workers": 3, "tasks__triage__paused": True}, False),
        ({"litellm_settings": {"num_retries": 2}}, True),
    ):
        after = config(model_list=[deployment(THROUGH)], **settings)
        assert changes(before, after).litellm is follows


def test_host_port_and_data_folder_cannot_change() -> None:
    after = config(data_dir="elsewhere", server__port=1, server__host="localhost")
    assert set(changes(config(), after).fixed) == set(FIXED)


def test_changes_name_settings_without_values() -> None:
    after = config(server__keys=[KEY], model_list=[deployment({**DIRECT, "api_key": "sk-two"})])
    assert "sk-" not in repr(changes(config(), after))


@pytest.mark.parametrize(
    ("plane", "foreign"),
    [("proxy", CONTROL_PLANE_ONLY), ("distill", tuple(p for p in PROXIES_ONLY if p != "server"))],
)
def test_neither_plane_reads_settings_of_the_other(plane: str, foreign: tuple[str, ...]) -> None:
    """Else a setting would change in the file and not in the plane."""
    for file in sorted((ROOT / plane).rglob("*.py")):
        read = set(re.findall(r"\bconfig\.((?:\w+\.)?\w+)", file.read_text(encoding="utf-8")))
        for name in read:
            assert not any(name == p or name.startswith(f"{p}.") for p in foreign), (file, name)


def test_the_only_server_setting_of_the_control_plane_is_the_log_level() -> None:
    for file in sorted((ROOT / "distill").glob("*.py")):
        found = set(re.findall(r"\bconfig\.server\.(\w+)", file.read_text(encoding="utf-8")))
        assert found <= {"log_level"}, file
