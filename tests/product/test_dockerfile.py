"""The Dockerfile as far as it can be checked without building it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch

from tests.helpers.paths import ROOT

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
# instructions with their continued lines joined, comments left out
LINES = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", TEXT)).splitlines()
IGNORED = [
    line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"
]


def instructions(name: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in LINES if line.startswith(f"{name} ")]


def sources() -> set[str]:
    """The paths that are copied from the build context."""
    copies = [words for words in instructions("COPY") if not words[0].startswith("--from")]
    return {source for words in copies for source in words[:-1]}


def test_copied_files_exist_and_are_not_ignored() -> None:
    assert sources()
    for source in sources():
        assert (ROOT / source).exists(), source
        last = [pattern for pattern in IGNORED if fnmatch(source, pattern.lstrip("!"))][-1]
        assert last.startswith("!"), f"{source} is in .dockerignore"


def test_files_excepted_from_dockerignore_are_copied() -> None:
    assert {line[1:] for line in IGNORED if line.startswith("!")} == sources()


def test_every_package_of_the_project_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {
        name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]
    }

    assert packages <= sources()


def test_the_image_has_two_stages_and_no_root() -> None:
    assert len(instructions("FROM")) == 2
    users = instructions("USER")
    assert users
    assert users[-1] != ["root"]
    after = TEXT[TEXT.index("\nUSER ") :]
    assert "RUN" not in after


def test_the_command_and_the_healthcheck_exist() -> None:
    words = " ".join(instructions("ENTRYPOINT")[0] + instructions("CMD")[0])
    assert words == "[tini, --, understudy] [serve]"
    check = next(line for line in LINES if line.startswith("HEALTHCHECK"))
    assert "/health" in check
    code = re.search(r'"-c", "(.*)"\]', check)
    assert code
    # without a server it fails, as a check must
    failed = subprocess.run(
        [sys.executable, "-c", code[1].replace(":4100", ":1")], capture_output=True, check=False
    )
    assert failed.returncode == 1
    assert b"URLError" in failed.stderr
