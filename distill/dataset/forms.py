"""The forms of the teacher's answers: labels, the keys of its JSON objects, the functions it calls.

A student that gives a label nobody has seen, an object with other keys, or a call of a function
that is never called, has lost its way: the teacher answers, whatever the confidence says.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import orjson

from distill.dataset.rows import Row
from store.chat.tools import read_said
from store.records import Forms, OutputKind

MAX_FORMS = (
    1000  # forms that are looked through for every answer; a task with more has none to speak of
)


def forms_of(rows: Sequence[Row], output: OutputKind, placeholders: Sequence[str] = ()) -> Forms:
    """The forms of these rows' answers. To be given rows that nothing is certified on.

    `placeholders`: what stands for what is redacted; no answer that is served holds one.
    """
    return replace(_forms_of(rows, output), placeholders=list(placeholders))


def _forms_of(rows: Sequence[Row], output: OutputKind) -> Forms:
    if output == "label":
        labels = {unicodedata.normalize("NFC", row.target).strip() for row in rows}
        return Forms(labels=sorted(labels) if len(labels) <= MAX_FORMS else [])
    if output == "json":
        keys = {found for row in rows if (found := _keys(row.target)) is not None}
        return Forms(keys=[list(found) for found in sorted(keys)] if len(keys) <= MAX_FORMS else [])
    if output == "tools":
        said = [read_said(row.target) for row in rows if "tools" in row.params]
        calls = {name for one in said if one is not None for name in one.names}
        return Forms(calls=sorted(calls) if len(calls) <= MAX_FORMS else [])
    return Forms()


def _keys(answer: str) -> tuple[str, ...] | None:
    """The sorted keys of a JSON object; None for anything else."""
    try:
        value = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    return tuple(sorted(value)) if isinstance(value, dict) else None
