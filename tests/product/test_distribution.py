"""On PyPI `understudy` is another project's: our texts name our distribution only."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.distribution import DISTRIBUTION, install_hint
from tests.helpers.paths import ROOT

THIRD_PARTIES = {"pip", "py-spy"}
WITH_A_VALUE = {"--constraint", "--requirement", "--prefix", "-c", "-r"}
SUFFIXES = {".py", ".md", ".yaml", ".toml", ".html"}
FOLDERS = ("cli", "demo", "distill", "proxy", "store", "bench", "docs")


def texts() -> Iterator[Path]:
    yield from (p for p in ROOT.iterdir() if p.is_file() and not p.name.startswith("."))
    for folder in FOLDERS:
        yield from (p for p in (ROOT / folder).rglob("*") if p.suffix in SUFFIXES)


def installed_by(text: str) -> Iterator[str]:
    """The names that each `pip install …` in a text names, without extras and versions."""
    text = text.replace("\\\n", " ").replace("{DISTRIBUTION}", DISTRIBUTION)  # of an f-string
    for command in re.findall(r"pip install([^\n`\"]*)", text):
        words = iter(re.split(r"&&|#|;|: |\. ", command)[0].replace("'", " ").split())
        for word in words:
            if word in WITH_A_VALUE:
                next(words, None)
            elif not word.startswith(("-", ".")):  # an option, or this folder
                yield re.split(r"[\[=<>~!@,)]", word)[0]


def test_the_names_in_a_text_are_read() -> None:
    text = (
        "`pip install 'understudy[otel]'` or pip install -c a.txt --editable '.[dev]'\n"
        'x = f"do pip install {DISTRIBUTION}[{extra}]"\nRUN pip install --no-deps understudy && ls'
    )
    assert list(installed_by(text)) == ["understudy", DISTRIBUTION, "understudy"]


@pytest.mark.parametrize("file", sorted(texts()), ids=lambda file: str(file.relative_to(ROOT)))
@pytest.mark.slow
def test_no_text_tells_people_to_install_a_package_of_strangers(file: Path) -> None:
    names = set(installed_by(file.read_text(encoding="utf-8", errors="replace")))

    assert names <= {DISTRIBUTION, *THIRD_PARTIES}


def test_extras_that_hints_and_extras_name_are_ours() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert project["name"] == DISTRIBUTION
    assert install_hint("otel") == "pip install 'understudy-proxy[otel]'"
    for requirements in project["optional-dependencies"].values():
        assert not [r for r in requirements if re.match(r"understudy(?!-proxy\[)", r)]
