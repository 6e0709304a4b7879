"""Named SQL: reads `sql/*.sql`, where each query has a name and a description.

All SQL of the project stands there, apart from the schema in `migrations/`. `$name` is a parameter.
A batch comes as one JSON array, which is hundreds of times faster than a row at a time. `"at"` is
quoted because AT is a keyword. Only plain SQL that DuckLake takes too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from store.errors import StoreError

FOLDER = Path(__file__).with_name("sql")
_HEADING = re.compile(r"^-- name: *(\w+) *$", re.MULTILINE)
_COMMENT = re.compile(r"\A(?:--.*\n)+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Query:
    """One named query."""

    name: str
    description: str
    sql: str


def load_queries(folder: Path = FOLDER) -> dict[str, Query]:
    """All queries of a folder by name.

    Raises StoreError when one has no description, or when two have the same name.
    """
    queries: dict[str, Query] = {}
    for file in sorted(folder.glob("*.sql")):
        for query in _read(file):
            if query.name in queries:
                raise StoreError(f"{file.name}: the query {query.name} is there twice")
            queries[query.name] = query
    return queries


def _read(file: Path) -> list[Query]:
    _, *parts = _HEADING.split(file.read_text(encoding="utf-8"))
    return [
        _query(file, name, body.lstrip("\n"))
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    ]


def _query(file: Path, name: str, text: str) -> Query:
    comment = _COMMENT.match(text)
    if comment is None:
        raise StoreError(f"{file.name}: the query {name} has no description")
    description = re.sub(r"^-- ?", "", comment.group(), flags=re.MULTILINE).strip()
    return Query(name, description, text[comment.end() :].partition(";\n")[0].strip())
