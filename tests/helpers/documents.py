"""The documents for people, and what they name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.helpers.paths import ROOT

README = "README.md"
MANUAL = tuple(sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")))
NAMES = (README, "ARCHITECTURE.md", *MANUAL)


def text_of(name: str) -> str:
    """A document, by its path in the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """A document's code blocks in a language, without their indentation in lists."""
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text_of(name), re.M | re.S)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in blocks]


def all_blocks(language: str) -> Iterator[tuple[str, str]]:
    """The code blocks of all documents in a language, with the documents' names."""
    for name in NAMES:
        yield from ((name, block) for block in blocks(name, language))


def code_spans(name: str) -> list[str]:
    """What stands between single backticks, outside of code blocks."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text_of(name), flags=re.M | re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def section(name: str, heading: str) -> str:
    """The text below a heading, up to the next one of its level."""
    text = text_of(name)
    match = re.search(rf"^(#+) {re.escape(heading)}$", text, re.M)
    assert match is not None, f"{name} has no section {heading}"
    return re.split(rf"^#{{1,{len(match[1])}}} ", text[match.end() :], maxsplit=1, flags=re.M)[0]


def table(name: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    lines = [line for line in section(name, heading).splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    first_end = next((i for i, row in enumerate(rows[2:], 2) if len(row) != len(rows[0])), None)
    return rows[2:first_end]
