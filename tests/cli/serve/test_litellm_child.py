"""LiteLLM's part of the config, and (slow) the real LiteLLM as a child of the real product."""

from __future__ import annotations

import signal
import stat
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from openai.types.chat import ChatCompletionMessageParam

from cli.serve.litellm_child import KEY_VARIABLE, litellm_child, litellm_config
from store.errors import ConfigError
from store.settings.config import Config, parse_config
from store.settings.teachers import teacher_pool
from tests.helpers.served import Served
from tests.helpers.serving import CLIENT_KEY, wait_until
from tests.helpers.teacher_server import LoopbackServer, error

MODULE = "litellm.proxy.proxy_cli"
PARAMS = {
    "model": "hosted_vllm/rules-1",
    "api_base": "http://127.0.0.1:9/v1",
    "api_key": "os.environ/RULES_KEY",
}
ENTRY = {"model_name": "big", "litellm_params": PARAMS}
PROMPT = "a prompt that no log may hold"


def config(folder: Path, **more: Any) -> Config:
    return parse_config({"model_list": [ENTRY], "data_dir": str(folder / "data"), **more})


def test_litellms_blocks_are_passed_on_unchanged() -> None:
    blocks = {
        "litellm_settings": {"num_retries": 2, "callbacks": ["mine.handler"]},
        "router_settings": {"routing_strategy": "least-busy"},
        "general_settings": {"alerting": ["slack"]},
        "environment_variables": {"REGION": "os.environ/OUR_REGION"},
        "callback_settings": {"otel": {"message_logging": False}},
    }

    settings, left_out = litellm_config(parse_config({"model_list": [ENTRY], **blocks}))

    assert left_out == []
    assert settings.pop("model_list") == [ENTRY]
    general = settings.pop("general_settings")
    assert general == {"alerting": ["slack"], "master_key": f"os.environ/{KEY_VARIABLE}"}
    assert settings == {k: v for k, v in blocks.items() if k != "general_settings"}


def test_a_key_with_the_line_end_of_its_file_reaches_litellm_without_it(tmp_path: Path) -> None:
    """It would be a header with a line end: each request a 500, or a refused key."""
    pem = "-----BEGIN KEY-----\nabc\n-----END KEY-----"
    entry = {
        "model_name": "other",
        "litellm_params": {
            "model": "anthropic/claude",
            "api_key": "sk-literal\n",
            "vertex_credentials_key": f"{pem}\n",
        },
    }
    settings = config(
        tmp_path,
        model_list=[ENTRY, entry],
        general_settings={"master_key": "sk-master\r\n"},
        environment_variables={"AZURE_API_KEY": "sk-azure ", "NOTE": " as it is "},
    )
    environment = {
        "RULES_KEY": "sk-rules\n",
        "ANTHROPIC_API_KEY": " sk-ant\n",
        "OTHER": " as it is ",
    }
    child = litellm_child(settings, config_folder=tmp_path, port=1, environment=environment)
    assert child.key == "sk-master"
    assert child.spec.env["RULES_KEY"] == "sk-rules"
    assert child.spec.env["ANTHROPIC_API_KEY"] == "sk-ant"
    assert child.spec.env["OTHER"] == " as it is "
    written = yaml.safe_load(child.file.read_text())
    params = written["model_list"][1]["litellm_params"]
    assert params["api_key"] == "sk-literal" and params["vertex_credentials_key"] == pem
    assert written["general_settings"]["master_key"] == "sk-master"
    assert written["environment_variables"] == {"AZURE_API_KEY": "sk-azure", "NOTE": " as it is "}


@pytest.mark.parametrize("how", ["literal", "variable", "master"])
def test_a_key_that_no_header_can_hold_is_refused_before_litellm_starts(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "sk-two\nlines"
    monkeypatch.setenv("RULES_KEY", broken if how == "variable" else "sk")
    entry = {**ENTRY, "litellm_params": {**PARAMS, "api_key": broken}}
    more: dict[str, Any] = {"model_list": [entry if how == "literal" else ENTRY]}
    if how == "master":
        more["general_settings"] = {"master_key": broken}
    settings = config(tmp_path, **more)
    with pytest.raises(ConfigError) as caught:
        teacher_pool(settings)
        litellm_child(settings, config_folder=tmp_path, port=1)
    assert "line end" in str(caught.value) and broken not in str(caught.value)


def test_unset_blocks_are_left_out() -> None:
    settings, _ = litellm_config(parse_config({"model_list": [ENTRY]}))

    assert set(settings) == {"model_list", "general_settings"}


def test_a_database_is_left_out_and_named() -> None:
    general = {"database_url": "os.environ/DATABASE_URL", "store_model_in_db": True, "x": 1}

    settings, left_out = litellm_config(
        parse_config({"model_list": [ENTRY], "general_settings": general})
    )

    assert left_out == ["database_url", "store_model_in_db"]
    assert settings["general_settings"] == {"x": 1, "master_key": f"os.environ/{KEY_VARIABLE}"}
    assert "database_url" in general  # the config itself stays as it was


def test_the_file_is_private_and_holds_references_instead_of_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RULES_KEY", "sk-rules")

    child = litellm_child(config(tmp_path), config_folder=tmp_path, port=5002)

    file = tmp_path / "data" / "litellm.yaml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "sk-rules" not in file.read_text()
    assert child.key not in file.read_text()
    written = yaml.safe_load(file.read_text())
    assert written["model_list"] == [ENTRY]
    assert child.url == "http://127.0.0.1:5002/v1"
    assert child.key not in repr(child)
    assert not any(child.key in argument for argument in child.spec.argv)


def test_it_starts_without_internet_database_or_telemetry(tmp_path: Path) -> None:
    inherited = {"DATABASE_URL": "postgres://…", "DIRECT_URL": "x", "PATH": "/bin", "OTHER": "1"}

    spec = litellm_child(
        config(tmp_path), config_folder=tmp_path, port=5002, environment=inherited
    ).spec

    assert spec.env["OTHER"] == "1"
    assert not {"DATABASE_URL", "DIRECT_URL"} & set(spec.env)
    assert spec.env["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    arguments = " ".join(spec.argv)
    assert "--host 127.0.0.1 --port 5002" in arguments
    assert "--telemetry False" in arguments
    assert spec.cwd == tmp_path  # the folder of callbacks and credential files


def test_each_start_has_a_new_key_unless_the_config_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(**general: str) -> str:
        settings = config(tmp_path, general_settings=general)
        return litellm_child(settings, config_folder=tmp_path, port=1).key

    monkeypatch.setenv("MASTER", "sk-from-environment")

    assert key() != key()
    assert key(master_key="sk-stated") == "sk-stated"
    assert key(master_key="os.environ/MASTER") == "sk-from-environment"
    monkeypatch.delenv("MASTER")
    with pytest.raises(ConfigError, match=r"general_settings\.master_key.*MASTER is not set"):
        key(master_key="os.environ/MASTER")


def ask(client: openai.OpenAI, prompt: str = PROMPT) -> str | None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": prompt}]
    answer = client.chat.completions.create(model="big", messages=messages)
    return answer.choices[0].message.content


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_traffic_goes_through_the_real_litellm_and_survives_its_death(
    tmp_path: Path, teacher: LoopbackServer
) -> None:
    entry = {**ENTRY, "litellm_params": {**PARAMS, "api_base": teacher.base_url}}
    settings = {"model_list": [entry], "litellm_settings": {"num_retries": 0}}
    with Served(tmp_path, settings, RULES_KEY="sk-rules") as served, served.client() as client:
        # the proxy is there at once
        assert [model.id for model in client.models.list()] == ["big"]

        # killed, it comes back; a request that needs it waits. It takes long to start, so that it
        # is not waited for before.
        first = served.child(MODULE)
        first.send_signal(signal.SIGKILL)
        wait_until(lambda: "LiteLLM ended (killed by SIGKILL)" in served.output)
        assert ask(client) == f"echo: {PROMPT}"
        assert served.child(MODULE).pid != first.pid
        sent = next(request for request in teacher.requests if request.method == "POST")
        assert sent.headers["authorization"] == "Bearer sk-rules"
        assert sent.json["model"] == "rules-1"

        streamed = client.chat.completions.create(
            model="big", messages=[{"role": "user", "content": PROMPT}], stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices]
        assert "".join(pieces) == f"echo: {PROMPT}"
        assert len(pieces) > 1

        # a refusal of the teacher stays a refusal
        teacher.script(error(400, "no such thing", type="invalid_request_error"))
        with pytest.raises(openai.BadRequestError):
            ask(client)

        assert served.stop() == []
        assert served.process.returncode == 0

    said = served.output + (served.data_dir / "logs" / "litellm.log").read_text()
    for secret in (PROMPT, "sk-rules", CLIENT_KEY):
        assert secret not in said
