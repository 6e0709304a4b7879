"""README and ARCHITECTURE say what is there: commands, files, settings and snippets that run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from cli.imports.importing import FORMATS
from cli.main import app
from store.settings.config import Config, parse_config
from tests.helpers.paths import ROOT
from tests.helpers.serving import ProxyThread

README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
FOLDERS = (
    "proxy",
    "proxy/surfaces",
    "proxy/upstream",
    "distill",
    "store",
    "cli",
    "demo",
    "demo/base",
)
SUFFIXES = {".py", ".sql", ".html"}


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language, without their indentation in lists."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", README, re.M | re.S)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


def tree() -> dict[str, set[str]]:
    """The files that the README's tree lists, by folder."""
    text = README.partition("## The tree")[2].partition("```\n")[2].partition("```")[0]
    found: dict[str, set[str]] = {}
    folder = ""
    for line in text.splitlines():
        name = line.split()[0]
        if line.startswith("  "):
            assert len(line.split()) > 1, f"{folder}{name} has no line"
            found[folder].add(name)
        elif name.endswith("/"):
            folder = name.rstrip("/")
            found[folder] = set()
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_tree_lists_every_file(folder: str) -> None:
    there = {
        f.name
        for f in (ROOT / folder).iterdir()
        if f.suffix in SUFFIXES and not f.name.startswith("__")
    }
    assert {n for n in tree()[folder] if not n.endswith("/")} == there


def test_every_file_that_a_document_names_is_there() -> None:
    for document in (README, ARCHITECTURE):
        for name in re.findall(
            r"`((?:proxy|distill|store|cli|demo|bench|tests)/[\w./-]*)`", document
        ):
            assert (ROOT / name).exists(), name


def test_every_command_that_the_readme_names_is_there() -> None:
    runner = CliRunner()
    by_hand = "pause|resume|promote|demote|retrain|forget"
    commands = rf"understudy (serve|status|check|backtest|import|demo|version|{by_hand})\b"
    named = set(re.findall(commands, README))
    assert {"serve", "status", "backtest", "import", *by_hand.split("|")} <= named
    for name in named:
        assert runner.invoke(app, [name, "--help"]).exit_code == 0
    for command in ("backtest", "import"):
        help_text = runner.invoke(app, [command, "--help"]).output
        shown = " ".join(re.findall(rf"understudy {command} [^\n`]*", README))
        for option in re.findall(r"--[a-z-]+", shown):
            assert option in help_text, option
    for command, options in re.findall(rf"understudy ({by_hand}) ([^\n`]*)", README):
        help_text = runner.invoke(app, [command, "--help"]).output
        for option in re.findall(r"--[a-z-]+", options):
            assert option in help_text, (command, option)


def test_the_formats_that_the_readme_names_are_those_of_the_import() -> None:
    section = README.partition("## Bring your logs")[2].partition("\n## ")[0]
    help_text = " ".join(CliRunner().invoke(app, ["import", "--help"]).output.split())
    assert set(re.findall(r"^\| `([a-z-]+)` \|", section, re.M)) == set(FORMATS)
    for name in FORMATS:
        assert name in help_text


def test_the_line_for_litellm_names_something_that_is_there() -> None:
    [block] = [text for text in blocks("text") if "litellm_settings" in text]
    module, _, instance = yaml.safe_load(block)["litellm_settings"]["callbacks"].rpartition(".")
    code = f"from {module} import {instance} as found; print(type(found).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == "UnderstudyJournal"


def test_every_make_target_that_the_readme_names_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z]+)", " ".join(blocks("sh")) + " `make setup`"):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert any("make test" in block for block in blocks("sh"))


def test_the_config_of_the_readme_can_be_used() -> None:
    [block] = blocks("yaml")
    config = parse_config(yaml.safe_load(block))
    assert config.task("triage").train.base in README


@pytest.mark.parametrize(
    "setting",
    ["min_traces", "gate.threshold", "gate.confidence", "gate.min_coverage"],
)
def test_the_defaults_that_the_readme_states(setting: str) -> None:
    value: object = Config.model_fields["task_defaults"].get_default(call_default_factory=True)
    for name in setting.split("."):
        value = getattr(value, name)
    said = re.search(rf"`{re.escape(setting)}`\s+\(([\d.]+)\)", README)
    assert said is not None
    assert float(said[1]) == value


def pointed_at(snippet: str, proxy: ProxyThread) -> str:
    """The snippet, asking a proxy of the tests, whose teacher is called otherwise."""
    assert "http://127.0.0.1:4100/v1" in snippet
    assert "gpt-4.1" in snippet
    return snippet.replace("http://127.0.0.1:4100", proxy.url).replace("gpt-4.1", "gpt-4o")


@pytest.mark.parametrize(
    ("language", "interpreter"),
    [("python", [sys.executable, "-"]), ("sh", ["sh", "-s"])],
)
def test_the_clients_of_the_readme_work(
    language: str, interpreter: list[str], proxy: ProxyThread
) -> None:
    if language == "sh" and shutil.which("curl") is None:
        pytest.skip("no curl here")
    [snippet] = [text for text in blocks(language) if "127.0.0.1:4100/v1" in text]
    subprocess.run(
        interpreter,
        input=pointed_at(snippet, proxy),
        text=True,
        check=True,
        timeout=60,
        capture_output=True,
        env={**os.environ, "OPENAI_API_KEY": "none"},
    )
    [trace] = proxy.wait_for_traces(1)
    assert trace["task"] == "triage"
    assert trace["outcome"] == "complete"


def test_the_javascript_client_says_the_same() -> None:
    [snippet] = blocks("js")
    assert 'baseURL: "http://127.0.0.1:4100/v1"' in snippet
    assert '"X-Understudy-Task": "triage"' in snippet


def test_the_container_is_started_as_the_dockerfile_wants_it() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    [command] = [text for text in blocks("text") if "docker run" in text]
    for place in re.findall(r"--volume [^:\s]+:([^:\s]+)", command):
        assert re.search(rf"^(?:ENV|VOLUME|WORKDIR|    ).*{re.escape(place)}", dockerfile, re.M)
    assert "EXPOSE 4100" in dockerfile
