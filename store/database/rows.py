"""Rows of the database as records, and records as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from store.jsontext import to_json

R = TypeVar("R")


def record(kind: type[R], row: Mapping[str, object]) -> R:
    """A row as a record. Columns that the record does not have are left out."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]  # every record is a dataclass
    return kind(**{name: value for name, value in row.items() if name in names})


def json_rows(rows: Sequence[Any]) -> str:
    """Records as a JSON array: the parameter `$rows` of an INSERT."""
    return to_json(list(rows)).decode()
