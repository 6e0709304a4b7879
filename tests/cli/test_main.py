"""The commands as users type them, but for `status`."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.cli_runs import understudy, write_config
from tests.helpers.paths import ROOT


def serve(config: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", "serve", "--config", str(config)],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENAI_API_KEY": "sk-secret", **env},
        check=False,
        timeout=60,
    )


def test_help_names_every_command() -> None:
    shown = understudy("--help").stdout

    for command in (
        *("serve", "status", "pause", "resume", "promote", "demote", "retrain"),
        *("init", "check", "backtest", "demo", "version"),
    ):
        assert re.search(rf"^\W*{command}\s", shown, re.MULTILINE), command


def test_version_prints_the_installed_version() -> None:
    assert re.fullmatch(r"understudy \d+\.\d+\.\d+\n", understudy("version").stdout)


def test_check_says_what_a_config_means_and_starts_nothing(tmp_path: Path) -> None:
    keys = [{"key": "client-key", "name": "support"}]
    done = understudy("check", "--config", write_config(tmp_path, server={"keys": keys}))

    assert done.exit_code == 0, done.stderr
    assert "can be used" in done.stdout
    assert "big (called directly)" in done.stdout
    assert "support" in done.stdout
    assert "client-key" not in done.stdout + done.stderr
    assert not (tmp_path / "data").exists()


def test_check_names_each_setting_that_has_another_name_now(tmp_path: Path) -> None:
    done = understudy(
        "check", "--config", write_config(tmp_path, retention={"retrain_marked": True})
    )

    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("retention.retrain_marked is now called") == 1


def test_check_names_a_right_that_allows_nothing(tmp_path: Path) -> None:
    keys = [{"key": "k", "name": "ops", "may": ["use", "configure"]}, {"key": "l", "name": "app"}]
    done = understudy("check", "--config", write_config(tmp_path, server={"keys": keys}))

    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("allows nothing") == done.stdout.count("(ops)") == 1


@pytest.mark.slow
@pytest.mark.parametrize("files", [64, 255])
def test_too_few_descriptors_end_serve_with_their_number(tmp_path: Path, files: int) -> None:
    script = (
        "import resource, sys; from cli.main import app;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}));"
        f"sys.argv = ['understudy', 'serve', '--config', {str(write_config(tmp_path))!r}]; app()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENAI_API_KEY": "sk-secret"},
        cwd=ROOT,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert f"only {files} files may be open" in done.stderr and "ulimit -n" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_a_fault_of_the_config_is_reported_before_anything_starts(tmp_path: Path) -> None:
    file = write_config(tmp_path, tresholds=1, task_defaults={"min_traces": "many"})

    checked, served = understudy("check", "--config", file), serve(file)

    assert (checked.exit_code, served.returncode) == (2, 2)
    assert served.stderr == checked.stderr
    assert "tresholds" in served.stderr
    assert "task_defaults.min_traces" in served.stderr
    assert "Traceback" not in served.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_a_taken_port_ends_serve_with_its_number(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        served = serve(write_config(tmp_path, server={"port": port}))

    assert served.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: the port is in use" in served.stderr


@pytest.mark.parametrize("command", ["check", "serve", "status"])
def test_a_missing_config_is_named(tmp_path: Path, command: str) -> None:
    done = understudy(command, "--config", tmp_path / "nowhere.yaml")

    assert done.exit_code == 2
    assert f"{tmp_path / 'nowhere.yaml'}: no such file; give one with --config" in done.stderr


@pytest.mark.slow
def test_a_teachers_key_that_is_not_set_is_named(tmp_path: Path) -> None:
    file = write_config(tmp_path)

    checked, served = (
        understudy("check", "--config", file, env={"OPENAI_API_KEY": ""}),
        serve(file, OPENAI_API_KEY=""),
    )

    assert (checked.exit_code, served.returncode) == (2, 2)
    assert "OPENAI_API_KEY" in served.stderr
    assert served.stderr == checked.stderr


def test_the_config_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = write_config(tmp_path)

    assert understudy("check", env={"UNDERSTUDY_CONFIG": str(file)}).exit_code == 0


@pytest.mark.slow
def test_serve_starts_its_children_before_heavy_imports() -> None:
    """The proxy's first answer waits for these imports."""
    script = (
        "import sys, cli.main, cli.serve.serve\n"
        "heavy = {'rich', 'duckdb', 'mlx', 'litellm', 'fastapi', 'openai', 'httpx', 'aiohttp', "
        "'scipy', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert done.stdout == "[]\n"


def test_a_backtest_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    done = understudy("backtest", tmp_path / "nowhere.jsonl", "--limit", 10, "--json")

    assert done.exit_code == 1
    assert "nowhere.jsonl" in done.stderr


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("backtest", "--test --task --limit --json --config --threshold --keep"),
        ("demo", "--json"),
        ("init", "--url --model --key-variable --base --host --port --yes --force --config"),
        ("status", "--server --key --json --watch --config"),
        ("pause", "--reason --server --key --json --config"),
        ("resume", "--reason --server --key --json --config"),
        ("promote", "--force --reason --server --key --json --config"),
        ("demote", "--reason --server --key --json --config"),
        ("retrain", "--reason --server --key --json --config"),
    ],
)
def test_a_commands_help_names_its_options(command: str, options: str) -> None:
    shown = understudy(command, "--help").stdout

    for option in options.split():
        assert option in shown
