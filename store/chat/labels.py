"""The labels of an answer: what can be named in it and counted, whatever kind of answer it is.

    labels   the whole answer, in its normal form
    tools    each function that it calls; `none` for an answer in words
    JSON     `field=value` for each value that is no object or list. Fields within fields are joined
             by dots; elements of a list belong to the field of the list: `order.status=open`
    text     nothing

Rare labels, protected labels, slices, live recall and forgetting go by these names. Pure functions.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

from store.chat.normal_form import normal_text
from store.chat.tools import read_tool_answer
from store.jsontext import read_json, to_json
from store.records import OutputKind

IN_WORDS = "none"  # the label of an answer in words where requests have tools


def labels_of(answer: str, output: OutputKind) -> frozenset[str]:
    """The names of all labels of an answer. `output`: the kind of the task's answers.

    None in free text, and in an answer that is not of this kind.
    """
    if output == "label":
        return frozenset((normal_text(answer),))
    if output == "tools":
        read = read_tool_answer(answer)
        return frozenset() if read is None else frozenset(name or IN_WORDS for name in read.names)
    if output == "json":
        return frozenset(f"{field}={value}" for field, value in json_fields(answer))
    return frozenset()


def json_fields(answer: str) -> Iterator[tuple[str, str]]:
    """(field, value) for each value of a JSON answer that is no object or list.

    The field is empty where the whole answer is the value, or an element of a list that is.
    """
    try:
        value = read_json(answer)
    except ValueError:
        return
    yield from _fields("", value)


def field_of(label: str) -> str:
    """The field of a label of a JSON answer."""
    return label.partition("=")[0]


def _fields(above: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _fields(f"{above}.{name}" if above else name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(above, inner)
    else:
        text = normal_text(value) if isinstance(value, str) else to_json(value).decode()
        yield unicodedata.normalize("NFC", above), text
