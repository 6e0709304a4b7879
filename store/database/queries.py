"""Named SQL: reads `queries.sql`, where each query has a name and says what it is for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from store.errors import StoreError

QUERIES = Path(__file__).with_name("queries.sql")
_HEADING = re.compile(r"^-- name: *(\w+) *$", re.MULTILINE)
_COMMENT = re.compile(r"\A(?:--.*\n)+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Query:
    """One named query."""

    name: str
    description: str
    sql: str


def load_queries(path: Path = QUERIES) -> dict[str, Query]:
    """All queries of a file by name. Raises StoreError when one has no description, or a twin."""
    _, *parts = _HEADING.split(path.read_text(encoding="utf-8"))
    found: dict[str, Query] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        text = body.lstrip("\n")
        comment = _COMMENT.match(text)
        if comment is None or name in found:
            fault = "has no description" if comment is None else "is there twice"
            raise StoreError(f"{path.name}: the query {name} {fault}")
        description = re.sub(r"^-- ?", "", comment.group(), flags=re.MULTILINE).strip()
        found[name] = Query(name, description, text[comment.end() :].partition(";\n")[0].strip())
    return found
