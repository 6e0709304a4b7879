"""Scorer `json`: matching leaves over all leaves of both sides.

A missing key costs as much as a wrong one and an extra one. Lists are compared by position. 1 and
"1" differ, 1 and 1.0 do not, nor does the order of keys matter. An answer that is no JSON scores 0.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from distill.evaluate.scorers.exact import exact_score
from distill.evaluate.scorers.spec import ScorerSpec
from store.jsontext import read_json

Leaves = dict[tuple[str | int, ...], Any]

_NOT_JSON = object()
_EMPTY_OBJECT, _EMPTY_LIST = object(), object()


def json_score(teacher: str, student: str) -> float:
    """The share of leaves that match; of a teacher's answer that is no JSON, equality."""
    expected, given = _parsed(teacher), _parsed(student)
    if expected is _NOT_JSON:  # the teacher broke its own format: nothing to compare by field
        return exact_score(teacher, student)
    if given is _NOT_JSON:
        return 0.0
    left, right = leaves_of(expected), leaves_of(given)
    same = sum(path in right and same_leaf(leaf, right[path]) for path, leaf in left.items())
    return same / len(left.keys() | right.keys())


def leaves_of(value: Any) -> Leaves:
    """Each leaf by its path. Without recursion: a student's answer may be nested deeply."""
    leaves: Leaves = {}
    todo: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, dict) and value:
            todo.extend(((*path, key), inner) for key, inner in value.items())
        elif isinstance(value, list) and value:
            todo.extend(((*path, place), inner) for place, inner in enumerate(value))
        elif isinstance(value, dict | list):
            leaves[path] = _EMPTY_OBJECT if isinstance(value, dict) else _EMPTY_LIST
        else:
            leaves[path] = value
    return leaves


def same_leaf(left: Any, right: Any) -> bool:
    """Whether two leaves are the same value: true is not 1, and text is compared after NFC."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, str) and isinstance(right, str):
        return unicodedata.normalize("NFC", left) == unicodedata.normalize("NFC", right)
    return bool(left == right)


def _parsed(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError:
        return _NOT_JSON


JSON = ScorerSpec(
    name="json",
    agree_at=1.0,
    compare=json_score,
    compare_words=exact_score,
    partial_calls=True,
)
