"""README and manual name what there is: files, commands, settings, headers, reasons, formats."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import click
import pytest
import typer
import yaml

from cli.imports.formats import FORMATS
from cli.main import app
from cli.status.table import render_task
from distill.evaluate import ceiling
from distill.evaluate.scorers.registry import SCORERS
from distill.gate import bounds, cutoffs
from distill.gate.gate import attempt_alpha, groups_needed
from distill.monitor import detector, rollout
from distill.monitor.detector import worst_case_delay
from distill.pipeline import verdict
from proxy.http import errors
from store.distribution import DISTRIBUTION
from store.records import Reason
from store.settings.config import Config, parse_config
from store.settings.renamed import RENAMED, RENAMED_IN_TASKS
from store.settings.tasks import GateSettings, TaskSettings
from tests.helpers.config_leaves import leaves
from tests.helpers.documents import (
    NAMES,
    README,
    all_blocks,
    blocks,
    code_spans,
    section,
    table,
    text_of,
)
from tests.helpers.paths import ROOT

MAX_README_LINES = 200
FOLDERS = "proxy|distill|store|cli|demo|bench|tests|docs"
COMMANDS = {
    name: {option for parameter in command.params for option in parameter.opts}
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
}
OPENAPI: dict[str, Any] = yaml.safe_load(
    (ROOT / "proxy" / "openapi.yaml").read_text(encoding="utf-8")
)

documents = pytest.mark.parametrize("name", NAMES)


def test_the_readme_is_short() -> None:
    assert len(text_of(README).splitlines()) <= MAX_README_LINES


@documents
def test_every_file_that_a_document_names_exists(name: str) -> None:
    for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text_of(name)):
        assert (ROOT / path).exists(), path


@documents
def test_every_link_between_documents_leads_to_a_file(name: str) -> None:
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text_of(name)):
        assert (ROOT / name).parent.joinpath(target).exists(), target


# ---- commands ----------------------------------------------------------------------------------


def command_lines(name: str) -> Iterator[str]:
    """Each call of the command line: in blocks of shell commands, and within sentences."""
    for block in blocks(name, "sh"):
        yield from re.findall(r"^(?:\.venv/bin/)?understudy (.*)", block, re.M)
    for span in code_spans(name):
        if match := re.fullmatch(r"(?:\.venv/bin/)?understudy (.*)", span):
            yield match[1]


@documents
def test_every_command_and_option_that_a_document_names_exists(name: str) -> None:
    for line in command_lines(name):
        command, *arguments = line.split("#")[0].split()
        assert command in COMMANDS, line
        for option in (argument for argument in arguments if argument.startswith("-")):
            assert option in COMMANDS[command], line


def test_every_command_has_its_place_in_a_document() -> None:
    named = {line.split()[0] for name in NAMES for line in command_lines(name)}

    assert set(COMMANDS) - named <= {"demo", "version"}


def test_commands_print_their_help() -> None:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert name in command.get_help(click.Context(command, info_name=name))


@documents
def test_every_make_target_that_a_document_names_exists(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = [span for span in code_spans(name) if span.startswith("make ")]
    named += re.findall(r"^make .*", "\n".join(blocks(name, "sh")), re.M)
    for line in named:
        assert re.search(rf"^{re.escape(line.split()[1])}:", makefile, re.M), line


@documents
def test_every_module_that_a_document_starts_exists(name: str) -> None:
    for module in re.findall(r"\bpython -m (\w+(?:\.\w+)*)", text_of(name)):
        assert importlib.util.find_spec(module) is not None, module


@documents
def test_every_extra_that_a_document_names_exists(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in re.findall(rf"(?:{DISTRIBUTION}|\.)\[(\w[\w-]*)\]", text_of(name)):
        assert extra in project["optional-dependencies"]


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert any("make test" in block for block in blocks(README, "sh"))


@documents
def test_every_environment_variable_that_a_document_names_is_read(name: str) -> None:
    code = "".join(
        path.read_text(encoding="utf-8")
        for package in ("cli", "store", "proxy", "distill")
        for path in (ROOT / package).rglob("*.py")
    )
    for variable in re.findall(r"\bUNDERSTUDY_[A-Z_]+", text_of(name)):
        assert f'"{variable}"' in code, variable


# ---- settings ----------------------------------------------------------------------------------


def settings() -> dict[str, object]:
    """Each setting with its default, and each group of settings; those of a task by their path."""
    known: dict[str, object] = {}
    for path, default in (*leaves(Config), *leaves(TaskSettings)):
        known |= {".".join(path[:end]): None for end in range(1, len(path))}
        known[".".join(path)] = default
    return known


SETTINGS = settings()
FORMER = RENAMED | RENAMED_IN_TASKS
GROUPS = {name.partition(".")[0] for name in SETTINGS if "." in name}


@documents
def test_every_setting_that_a_document_names_exists(name: str) -> None:
    for span in code_spans(name):
        match = re.fullmatch(r"([a-z_]+(?:\.[a-z_]+)+)(?:: .*)?", span)
        if match and match[1].partition(".")[0] in GROUPS:
            assert match[1] in {*SETTINGS, *FORMER}, span


def test_the_former_names_of_settings_are_listed() -> None:
    rows = table("docs/operations.md", "Upgrading")

    assert {former.strip("`"): name.strip("`") for former, name in rows} == FORMER


@documents
def test_the_defaults_that_a_document_states_are_those_of_the_code(name: str) -> None:
    for setting, stated in re.findall(r"`([a-z_.]+)`\s+\(([\d.,]*\d)", text_of(name)):
        assert float(stated.replace(",", "")) == SETTINGS[setting], setting


def test_the_readme_states_the_defaults_of_the_promise() -> None:
    stated = set(re.findall(r"`([a-z_.]+)`\s+\([\d.]+\)", text_of(README)))

    assert {"min_traces", "gate.threshold", "gate.confidence", "gate.min_coverage"} <= stated


def test_configs_in_documents_can_be_used() -> None:
    bases = []
    for name, block in all_blocks("yaml"):
        config = parse_config(yaml.safe_load(block), where=name)
        bases.append(config.task("triage").train.base)

    assert len(bases) >= 2


def test_excerpts_of_configs_in_documents_can_be_used() -> None:
    [model_list] = [yaml.safe_load(block)["model_list"] for block in blocks(README, "yaml")]
    excerpts = [
        (name, read)
        for name, block in all_blocks("text")
        if ":" in block and isinstance(read := _yaml(block), dict)
    ]
    for name, excerpt in excerpts:
        parse_config({"model_list": model_list, **excerpt}, where=name)

    assert {"privacy", "litellm_settings"} <= {key for _, e in excerpts for key in e}


def _yaml(block: str) -> object:
    try:
        return yaml.safe_load(block)
    except yaml.YAMLError:
        return None


# ---- APIs --------------------------------------------------------------------------------------


@documents
def test_every_header_that_a_document_names_exists(name: str) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "proxy").rglob("*.py"))
    for header in re.findall(r"x-understudy-[a-z]+", text_of(name), re.I):
        assert f'"{header.lower()}"' in code, header


def test_the_reasons_in_the_manual_are_all_there_are() -> None:
    rows = [line for line in section("docs/apis.md", "Reasons").splitlines() if "|" in line]
    listed = {match[1] for row in rows if (match := re.match(r"\| `(\w+)` \|", row))}

    assert listed | {"imported"} == set(Reason)


def test_the_manual_has_every_error_of_the_proxy() -> None:
    made = [
        errors.unauthorized(presented=True),
        *(make() for make in (errors.foreign_page, errors.foreign_cors, errors.foreign_host)),
        errors.missing_right("app", "forget"),
        errors.unknown_path("GET", "/x"),
        errors.unknown_model("x"),
        errors.wrong_method("PUT", "GET"),
        errors.no_websocket(),
        errors.too_large(1),
        errors.unknown_coding(),
        errors.too_many("requests", "all", 1),
        *(errors.not_http(status, "no") for status in (400, 408, 431)),
        *(make() for make in (errors.internal, errors.too_many_connections)),
        *(make("x") for make in (errors.teacher_down, errors.teacher_slow)),
        *(errors.teacher_starting("x"), errors.control_plane_down()),
    ]
    rows = [
        row.split(" | ")
        for row in section("docs/apis.md", "Errors of the proxy itself").splitlines()
    ]
    documented = {
        (row[0].strip("| "), code)
        for row in rows
        if len(row) > 2
        for code in re.findall(r"`(\w+)`", row[1])
    }
    assert {(str(error.status), error.code) for error in made} == documented
    codes = set(re.findall(r'code="(\w+)"', (ROOT / "proxy/http/errors.py").read_text()))
    assert codes <= {error.code for error in made}


def test_the_paths_in_the_manual_are_those_of_the_proxy() -> None:
    named = set(re.findall(r"`(?:GET|POST) (/v1/[\w/]+)`", text_of("docs/apis.md")))
    ours = {path for path in OPENAPI["paths"] if path.startswith("/v1/") and "{" not in path}

    assert named - {"/v1/…"} <= ours
    # what belongs to Responses is told in words
    assert {path for path in ours - named if not path.startswith("/v1/responses/")} == set()


def test_the_fields_of_feedback_are_those_of_the_api() -> None:
    listed = [row[0].strip("`") for row in table("docs/feedback.md", "Feedback")]

    assert listed == list(OPENAPI["components"]["schemas"]["FeedbackRequest"]["properties"])


def test_the_lines_of_the_status_in_the_manual_are_those_of_the_command() -> None:
    code = inspect.getsource(render_task)
    shown = re.findall(r"^ +\(\"([a-z, ]+)\", ", code, re.M)

    assert ["task", *(row[0] for row in table("docs/operations.md", "Status"))] == shown


# ---- imports -----------------------------------------------------------------------------------


def test_the_formats_in_the_manual_are_those_of_the_import() -> None:
    listed = [row[0].strip("`") for row in table("docs/import.md", "Other logs as traces")]

    assert set(listed) == set(FORMATS)


@pytest.mark.slow
def test_the_line_for_litellms_config_names_a_callback() -> None:
    [block] = [block for block in blocks("docs/import.md", "text") if "litellm_settings" in block]
    module, _, instance = yaml.safe_load(block)["litellm_settings"]["callbacks"].rpartition(".")
    code = f"from {module} import {instance} as callback; print(type(callback).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == "UnderstudyJournal"


# ---- the promise -------------------------------------------------------------------------------


def test_the_scorers_in_the_manual_are_those_of_the_registry() -> None:
    rows = table("docs/promise.md", "What is compared")

    assert {name.strip("`"): float(bar) for name, _, bar in rows} == {
        spec.name: spec.agree_at for spec in SCORERS.values()
    }


def test_the_table_of_rows_that_a_certificate_needs_is_computed() -> None:
    rows = table("docs/promise.md", "The bound")
    assert len(rows) == 4
    for threshold, *needed in rows:
        gate = GateSettings(threshold=float(threshold))
        assert [int(n) for n in needed] == [groups_needed(gate, k) for k in (1, 2, 3)]


def test_the_constants_of_the_promise_are_those_of_the_code() -> None:
    text = " ".join(text_of("docs/promise.md").split())
    odds = [f"{odds:g}" for odds in detector.ODDS]
    for stated in (
        f"over {bounds.NODES} values",
        f"Beta({bounds.BETS[0]:g}, {bounds.BETS[1]:g})",
        f"up to {cutoffs.STEPS} more",
        f"{ceiling.MIN_ROWS} to {ceiling.MAX_ROWS} of them",
        f"at least {verdict.MIN_PAIRS} audited answers",
        f"{odds[0]}, {odds[1]} and {odds[2]} times the tolerated odds",
        f"min(1, {rollout.FULL_RATE_AUDITS} / a)",
        f"min(1, s / {rollout.SUSPICIOUS_LEVEL:g})",
    ):
        assert stated in text


def test_the_error_budgets_of_attempts_are_computed() -> None:
    stated = re.findall(r"_(\d) = (0\.\d+)", section("docs/promise.md", "Attempts"))
    assert len(stated) == 3
    for attempt, alpha in stated:
        assert attempt_alpha(GateSettings(), int(attempt)) == pytest.approx(float(alpha), rel=1e-3)


@pytest.mark.slow
def test_the_table_of_observations_until_an_alarm_is_computed() -> None:
    text = section("docs/promise.md", "Detectors")
    tolerated, observations = (
        re.findall(r"[\d.]+", re.findall(rf"^\| {head} \|(.*)", text, re.M)[0])
        for head in ("tolerated", "observations")
    )
    run_length = TaskSettings().audit.run_length
    assert [int(n) for n in observations] == [
        worst_case_delay(float(p), run_length) for p in tolerated
    ]


# ---- containers --------------------------------------------------------------------------------


def test_the_container_is_started_as_the_dockerfile_wants_it() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    [command] = [block for _, block in all_blocks("text") if "docker run" in block]
    for place in re.findall(r"--volume [^:\s]+:([^:\s]+)", command):
        assert re.search(rf"^(?:ENV|VOLUME|WORKDIR|    ).*{re.escape(place)}", dockerfile, re.M)
    assert "EXPOSE 4100" in dockerfile
