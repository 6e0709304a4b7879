"""The forms of the teacher's answers: which labels there are, which keys its JSON objects have.

A student that gives a label nobody has seen, or an object with other keys, has lost its way: the
teacher answers, whatever the confidence says.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import orjson

from distill.dataset import Row
from store.models import OutputKind
from store.verdicts import Forms

MOST = 1000  # forms that are looked through for every answer; a task with more has none to speak of


def forms_of(rows: Sequence[Row], output: OutputKind) -> Forms:
    """The forms of these rows' answers. To be given rows that nothing is certified on."""
    if output == "label":
        labels = {unicodedata.normalize("NFC", row.target).strip() for row in rows}
        return Forms(labels=sorted(labels) if len(labels) <= MOST else [])
    if output == "json":
        keys = {found for row in rows if (found := _keys(row.target)) is not None}
        return Forms(keys=[list(found) for found in sorted(keys)] if len(keys) <= MOST else [])
    return Forms()


def _keys(answer: str) -> tuple[str, ...] | None:
    """The sorted keys of a JSON object; None for anything else."""
    try:
        value = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    return tuple(sorted(value)) if isinstance(value, dict) else None
