"""Code that nothing uses: `python -m tests.helpers.dead_code`, a part of `make check`.

Vulture's findings without the fields of records and settings, which are read from their JSON. What
tests alone use counts as unused: tests are not looked at. Names that frameworks call are allowed
in pyproject.toml, `tool.vulture.ignore_names`.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vulture import Vulture

from tests.helpers.paths import ROOT


def dead_code(root: Path = ROOT) -> list[str]:
    """A line for each unused thing: where it is, and its name."""
    settings = _settings(root)
    vulture = Vulture(
        ignore_names=settings["ignore_names"], ignore_decorators=settings["ignore_decorators"]
    )
    vulture.scavenge([str(root / path) for path in settings["paths"] if (root / path).exists()])
    return [
        f"{item.filename.relative_to(root)}:{item.first_lineno}: unused {item.typ} {item.name}"
        for item in vulture.get_unused_code(min_confidence=settings["min_confidence"])
        if (item.name, item.first_lineno) not in set(_fields(item.filename))
    ]


def _settings(root: Path) -> dict[str, Any]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    found: dict[str, Any] = project["tool"]["vulture"]
    return found


def _fields(file: Path) -> Iterator[tuple[str, int]]:
    """The names that the classes of a file declare with their types, and where."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        for line in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                yield line.target.id, line.lineno


if __name__ == "__main__":
    unused = dead_code()
    print(*unused, sep="\n", end="\n" if unused else "")
    sys.exit(bool(unused))
