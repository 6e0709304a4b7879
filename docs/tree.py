"""Writes the tree in ARCHITECTURE.md: folders and files, with the first sentence of each docstring.

.venv/bin/python docs/tree.py            writes it
.venv/bin/python docs/tree.py --check    says whether it is up to date, by the exit status
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- tree: written by docs/tree.py -->\n", "<!-- end of the tree -->\n"
PACKAGES = ("proxy", "distill", "store", "cli", "demo", "bench", "docs")
SHOWN = {".py", ".sql", ".html", ".yaml", ".lua"}
WIDTH = 26  # of the column of names
# what has no docstring of its own; folders that stand here are not listed file by file
OTHERS = {
    "demo/base/weights": "The base student that comes with the repository",
    "store/database/migrations": "The schema's history: numbered SQL files",
    "distill/status/status.html": "The page at /distill",
    "proxy/openapi.yaml": "What the proxy serves itself, as OpenAPI 3.1",
    "bench/wrk.lua": "The request that wrk sends",
}


def tree() -> str:
    """The tree as a block of Markdown."""
    lines = [line for package in PACKAGES for line in _folder(ROOT / package)]
    lines.append(_line("tests/", "Laid out like the packages", 0))
    return "\n".join(["```", *lines, "```"]) + "\n"


def document(text: str) -> str:
    """ARCHITECTURE.md with the tree as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{DOCUMENT.name} has no place for the tree")
    return f"{before}{BEGIN}{tree()}{END}{after}"


def _folder(folder: Path, depth: int = 0) -> Iterator[str]:
    name = str(folder.relative_to(ROOT))
    yield _line(f"{folder.name}/", OTHERS.get(name) or _sentence(folder / "__init__.py"), depth)
    if name in OTHERS:
        return
    for entry in sorted(folder.iterdir(), key=lambda entry: (entry.is_dir(), entry.name)):
        if entry.is_dir() and _is_listed(entry):
            yield from _folder(entry, depth + 1)
        elif entry.suffix in SHOWN and not entry.name.startswith("__"):
            yield _line(entry.name, _sentence(entry), depth + 1)


def _is_listed(folder: Path) -> bool:
    files = any(entry.suffix in SHOWN for entry in folder.iterdir())
    return files or str(folder.relative_to(ROOT)) in OTHERS


def _line(name: str, sentence: str, depth: int) -> str:
    indented = f"{'  ' * depth}{name}"
    return f"{indented:<{WIDTH}}  {sentence}".rstrip()


def _sentence(file: Path) -> str:
    """The first sentence of what a file says of itself, without its full stop."""
    name = str(file.relative_to(ROOT))
    if name in OTHERS:
        return OTHERS[name]
    if not file.exists():
        return ""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        said = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
    else:  # comments at the head
        said = "\n".join(
            line.lstrip("-# ")
            for line in re.split(r"^(?!--|#)", text, maxsplit=1, flags=re.M)[0].splitlines()
        )
    return re.split(r"(?<=[^.])\.(?:\s|$)", " ".join(said.split()), maxsplit=1)[0].rstrip(". ")


def main() -> None:
    """The command."""
    text = DOCUMENT.read_text(encoding="utf-8")
    fresh = document(text)
    if "--check" in sys.argv[1:]:
        sys.exit("the tree in ARCHITECTURE.md is stale: run `make tree`" if fresh != text else 0)
    DOCUMENT.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
