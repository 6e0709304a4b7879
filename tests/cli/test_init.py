"""understudy init: the config that it writes, on this machine and on others."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from cli.commands.starter import Base, Starter, answered, base_for, rendered
from store.settings.config import Config, config_from_yaml, load_config
from store.settings.teachers import deployments
from tests.helpers.cli_runs import understudy
from tests.helpers.paths import ROOT
from tests.helpers.served import Served
from tests.helpers.teacher_server import LoopbackServer, completion


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def starter(**changes: Any) -> Starter:
    known: dict[str, Any] = {
        "url": "http://127.0.0.1:8000/v1",
        "model": "big",
        "key_variable": None,
        "base": Base("a/base", "as given"),
        "host": "127.0.0.1",
        "port": 4100,
        "key": None,
    }
    return Starter(**{**known, **changes})


def read(written: Starter) -> Config:
    return config_from_yaml(rendered(written).encode(), where="starter")


def test_what_it_writes_without_a_question_can_be_used(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    done = understudy("init", "--config", file)
    assert done.exit_code == 0, done.stderr
    assert mode(file) == 0o600
    checked = understudy("check", "--config", file)
    assert checked.exit_code == 0 and "gpt-4.1 (called directly)" in checked.stdout
    assert "none, loopback only" in checked.stdout
    config = load_config(file)
    assert config.model_list[0]["litellm_params"]["api_key"] == "os.environ/OPENAI_API_KEY"
    assert len(file.read_text().splitlines()) < 30


@pytest.mark.slow
def test_serve_answers_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackServer() as teacher:
        teacher.script(completion("Yes."))
        file = tmp_path / "starter.yaml"
        given = ("--url", teacher.base_url, "--model", "big", "--port", 0, "--host", "localhost")
        assert understudy("init", "--config", file, *given).exit_code == 0
        written = {**yaml.safe_load(file.read_text()), "data_dir": str(tmp_path / "data")}
        with Served(tmp_path, written) as served:
            client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none")
            messages: Any = [{"role": "user", "content": "Is it?"}]
            answer = client.chat.completions.create(model="big", messages=messages)
        assert answer.choices[0].message.content == "Yes."
        assert teacher.requests[0].json["model"] == "big"


def test_a_config_that_is_there_is_replaced_with_force_alone(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("mine: 1")
    file.chmod(0o644)
    refused = understudy("init", "--config", file)
    assert refused.exit_code == 2 and "--force replaces it" in refused.stderr
    assert file.read_text() == "mine: 1"
    assert understudy("init", "--config", file, "--force").exit_code == 0
    assert "gpt-4.1" in file.read_text() and mode(file) == 0o600


def test_neither_a_folder_nor_a_dangling_link_makes_room(tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "nowhere")
    for place in (tmp_path, link):
        assert understudy("init", "--config", place).exit_code == 2
    assert understudy("init", "--config", tmp_path, "--force").exit_code == 2
    assert not (tmp_path / "nowhere").exists() and tmp_path.is_dir()


def test_a_proxy_that_others_can_reach_gets_a_key_of_its_own(tmp_path: Path) -> None:
    keys = []
    for name in ("one", "two"):
        file = tmp_path / name
        done = understudy("init", "--config", file, "--host", "0.0.0.0")
        [key] = load_config(file).server.keys
        assert key.key.get_secret_value() not in done.stdout
        assert "operate" in key.may
        keys.append(key.key.get_secret_value())
    assert keys[0] != keys[1] and all(len(key) > 40 for key in keys)


@pytest.mark.parametrize("pasted", ["sk-proj-abcdef123456", "a1b2c3d4", "A KEY"])
def test_a_key_in_the_place_of_its_variable_is_refused_and_not_shown(
    tmp_path: Path, pasted: str
) -> None:
    done = understudy("init", "--config", tmp_path / "c", "--key-variable", pasted)
    assert done.exit_code == 2 and "not the key itself" in done.stderr
    assert pasted not in done.stdout + done.stderr
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--url", "localhost:8000/v1"), "begins with http"),
        (("--url", "http://user:pw@host/v1"), "begins with http"),
        (("--url", "http://127.0.0.1:8000/v1"), "which model"),
        (("--port", "70000"), "server.port"),
    ],
)
def test_what_could_not_be_used_is_not_written(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = understudy("init", "--config", tmp_path / "c", *options)
    assert done.exit_code == 2 and message in done.stderr
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("memory", "gpu", "base"),
    [
        (8, True, "mlx-community/Qwen3-0.6B-4bit"),
        (16, True, "mlx-community/Qwen3-1.7B-4bit"),
        (64, True, "mlx-community/Qwen3-4B-4bit"),
        (512, False, "mlx-community/Qwen3-0.6B-4bit"),
    ],
)
def test_the_base_fits_the_machine(memory: float, gpu: bool, base: str) -> None:
    assert base_for(memory, gpu=gpu).name == base


def unasked(question: str, default: str) -> str:
    return default


def test_a_teacher_of_another_provider_is_called_through_litellm() -> None:
    found = answered(None, "anthropic/claude-sonnet-4-5", None, unasked)
    config = read(found)
    [entry] = config.model_list
    assert entry["model_name"] == "claude-sonnet-4-5"
    assert entry["litellm_params"] == {
        "model": "anthropic/claude-sonnet-4-5",
        "api_key": "os.environ/ANTHROPIC_API_KEY",
    }


def test_no_other_teacher_gets_the_key_that_openai_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    [deployment] = deployments(read(answered("http://127.0.0.1:8000/v1/", "m", None, unasked)))
    assert deployment.api_key != "sk-of-openai"
    assert deployment.base_url == "http://127.0.0.1:8000/v1"


@example(":", "a:").via("discovered failure")
@example("no", "1e3")
@example("-", "\U00010000")
@given(st.text(min_size=1).filter(lambda t: t == t.strip()), st.text(min_size=1))
def test_any_names_are_read_as_they_were_given(model: str, base: str) -> None:
    config = read(starter(model=model, base=Base(base, "as given")))
    [entry] = config.model_list
    assert entry["model_name"] == model
    assert entry["litellm_params"]["model"] == f"openai/{model}"
    assert config.task_defaults.train.base == base


@pytest.mark.slow
def test_at_a_terminal_it_asks_for_the_teacher(tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    file = tmp_path / "config.yaml"
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "init", "--config", str(file)],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
    ) as asked:
        os.write(main, b"http://127.0.0.1:8000/v1\nqwen\n\n")
        shown, _ = asked.communicate(timeout=60)
    os.close(main)
    os.close(terminal)
    assert asked.returncode == 0, shown
    for question in (b"URL", b"model", b"environment variable"):
        assert question in shown
    [entry] = load_config(file).model_list
    assert (entry["model_name"], entry["litellm_params"]["api_base"]) == (
        "qwen",
        "http://127.0.0.1:8000/v1",
    )
