"""The callback in LiteLLM's own proxy: one line in its config, and its calls are in the journal."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from cli.litellm_callback import DATA_DIR
from distill.collect import collect
from store.chat.shape import fingerprint
from store.database.database import Database
from store.settings.config import StoreSettings
from tests.helpers import log_samples as logs
from tests.helpers.journal_lines import lines
from tests.helpers.paths import ROOT
from tests.helpers.serving import wait_until
from tests.helpers.teacher_server import LoopbackServer, Reply, completion, error, stream

LINE = "cli.litellm_callback.journal"


@contextmanager
def litellm_proxy(folder: Path, data: Path, teacher: LoopbackServer) -> Iterator[openai.OpenAI]:
    """LiteLLM's own proxy with our one line in its config."""
    port = 20_000 + os.getpid() % 12_000  # below those of outgoing connections
    config = folder / "litellm.yaml"
    params = {"model": "openai/gpt-4o", "api_base": teacher.base_url, "api_key": "sk-x"}
    config.write_text(
        yaml.safe_dump(
            {
                "model_list": [{"model_name": "big", "litellm_params": params}],
                "litellm_settings": {"callbacks": LINE, "num_retries": 0},
                "general_settings": {"master_key": "sk-master"},
            }
        )
    )
    env = {
        **os.environ,
        DATA_DIR: str(data),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "PYTHONPATH": str(ROOT),
    }
    module = ["-m", "litellm.proxy.proxy_cli", "--config", str(config), "--host", "127.0.0.1"]
    with (folder / "litellm.log").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *module, "--port", str(port), "--telemetry", "False"],
            env=env,
            cwd=folder,
            stdout=out,
            stderr=out,
        )

    def alive() -> bool:
        assert process.poll() is None, (folder / "litellm.log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5):
                return True
        except (OSError, http.client.HTTPException):  # not yet, or a port that connects to itself
            return False

    try:
        wait_until(alive, within_s=120)
        base = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=base, api_key="sk-master", max_retries=0) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_line_in_the_config_makes_the_real_litellm_journal_its_calls(tmp_path: Path) -> None:
    data = tmp_path / "data"
    tool = {"message": {"role": "assistant", "content": None, "tool_calls": [logs.CALL]}}
    called = {**logs.completion(), "choices": [{"index": 0, "finish_reason": "tool_calls", **tool}]}
    with LoopbackServer() as teacher, litellm_proxy(tmp_path, data, teacher) as client:

        def ask(text: str, **more: Any) -> Any:
            turns: Any = [logs.MESSAGES[0], {"role": "user", "content": text}]
            return client.chat.completions.create(model="big", messages=turns, **more)

        ask("plain", extra_headers={"X-Understudy-Task": "triage"})
        ask("tagged", extra_body={"metadata": {"tags": ["Prod EU", "task:orders"]}})
        ask("named", extra_body={"metadata": {"task": "refunds"}}, temperature=0.5)
        assert list(ask("streamed", stream=True, user="u1"))
        teacher.script(Reply((json.dumps(called).encode(),)))
        ask("tools", tools=[logs.TOOL])
        teacher.script(error(400, "no", type="invalid_request_error"))
        with pytest.raises(openai.BadRequestError):
            ask("refused")
        through = {"x_understudy_trace": "0196f1a2"}
        teacher.script(completion("ours").with_headers(**through))
        ask("ours")
        teacher.script(stream("ours").with_headers(**through))
        assert list(ask("ours, streamed", stream=True))
        ask("last")
        by_text = wait_until(lambda: found(data) if "last" in found(data) else None)

    texts = {"plain", "tagged", "named", "streamed", "tools", "refused", "last"}
    assert by_text.keys() == texts
    tasks = {text: by_text[text]["task"] for text in ("plain", "tagged", "named", "last")}
    assert tasks == {"plain": "triage", "tagged": "orders", "named": "refunds", "last": None}
    plain = by_text["plain"]
    asked = {"model": "big", "messages": json.loads(plain["input_messages"])}
    assert plain["fingerprint"] == fingerprint(asked)
    assert json.loads(by_text["named"]["request_params"])["temperature"] == 0.5
    streamed = by_text["streamed"]
    assert json.loads(streamed["output_messages"])[0]["content"] == "echo: streamed"
    assert (streamed["stream"], streamed["end_user"]) == (True, "u1")
    assert streamed["time_to_first_chunk_ms"] > 0
    tools = by_text["tools"]
    assert json.loads(tools["tool_definitions"]) == [logs.TOOL]
    assert json.loads(tools["output_messages"])[0]["tool_calls"][0]["function"]["name"] == "track"
    refused = by_text["refused"]
    assert (refused["outcome"], refused["status_code"]) == ("error", 400)
    assert (refused["served_by"], refused["error_type"]) == (None, "BadRequestError")
    # the segments are whole and can be collected
    with Database(tmp_path / "understudy.duckdb", StoreSettings()) as db:
        assert collect(db, data / "journal", {}).traces == len(texts)


def found(data: Path) -> dict[str, dict[str, Any]]:
    """The traces in the journal, by the text of their requests."""
    try:
        return {json.loads(t["input_messages"])[-1]["content"]: t for t in lines(data)}
    except ValueError:  # written just now
        return {}
