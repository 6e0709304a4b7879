"""Answers from closed sets: split into the choices that they consist of, and written again.

A label is one choice. A JSON object has one for each of its keys, whose values are taken whole, or
that it lacks; any other JSON value is one choice. An answer is written as the teacher writes most
of its own: its spelling of a label, or its order of keys and white space.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from store.chat.normal_form import normal_text
from store.jsontext import read_json

ABSENT = ""  # of a key that an object lacks; no JSON value is written so
MAX_CHOICES = 1000  # of one field

# ways to lay out JSON: (indent, separators, ensure_ascii)
_LAYOUTS: tuple[tuple[int | None, tuple[str, str], bool], ...] = tuple(
    (indent, separators, escaped)
    for escaped in (False, True)
    for indent, separators in (
        (None, (", ", ": ")),
        (None, (",", ":")),
        (2, (",", ": ")),
        (4, (",", ": ")),
    )
)


@dataclass(frozen=True, slots=True)
class ClosedSet:
    """The answers of a task, as choices."""

    kind: Literal["label", "json"]
    fields: tuple[str, ...]  # keys of the objects, in the teacher's order; one, empty, for a label
    choices: tuple[tuple[str, ...], ...]  # of each field, sorted: labels, or JSON values
    spellings: tuple[str, ...] = ()  # of each label, as the teacher writes it
    layout: int = 0  # of JSON, by its place in _LAYOUTS

    @classmethod
    def of(cls, kind: Literal["label", "json"], targets: Sequence[str]) -> ClosedSet:
        """The choices of these answers. Raises ValueError when they are none from closed sets."""
        if kind == "label":
            written: dict[str, Counter[str]] = {}
            for target in targets:
                written.setdefault(normal_text(target), Counter())[target.strip()] += 1
            labels = tuple(sorted(written))
            _refuse_many(labels)
            spelt = tuple(max(sorted(written[x]), key=written[x].__getitem__) for x in labels)
            return cls(kind, ("",), (labels,), spelt)
        values = [read_json(target) for target in targets]
        keys = Counter(tuple(value) for value in values if isinstance(value, dict))
        if sum(keys.values()) < len(values):
            if keys:
                raise ValueError("some answers are objects, and some are not")
            fields: tuple[str, ...] = ("",)
        else:
            common = max(keys, key=lambda order: (keys[order], order))
            fields = (*common, *sorted({k for order in keys for k in order} - set(common)))
        split = [_split(value, fields) for value in values]
        choices = tuple(tuple(sorted({row[i] for row in split})) for i in range(len(fields)))
        for of_field in choices:
            _refuse_many(of_field)
        return cls(kind, fields, choices, (), _layout(targets, values))

    def places(self, target: str) -> list[int] | None:
        """The place of each field's choice in an answer; None when it is not of these sets."""
        try:
            if self.kind == "label":
                return [self.choices[0].index(normal_text(target))]
            value = read_json(target)
            if isinstance(value, dict) != (self.fields != ("",)):
                return None
            if isinstance(value, dict) and not set(value).issubset(self.fields):
                return None
            split = _split(value, self.fields)
            return [own.index(one) for own, one in zip(self.choices, split, strict=True)]
        except ValueError:
            return None

    def written(self, places: Sequence[int]) -> str:
        """The answer with these choices, as the teacher would write it."""
        if self.kind == "label":
            return self.spellings[places[0]]
        chosen = [own[place] for own, place in zip(self.choices, places, strict=True)]
        if self.fields == ("",):
            return _dumped(json.loads(chosen[0]), self.layout)
        pairs = zip(self.fields, chosen, strict=True)
        return _dumped({k: json.loads(v) for k, v in pairs if v != ABSENT}, self.layout)


def _split(value: Any, fields: Sequence[str]) -> list[str]:
    if not isinstance(value, dict):
        return [_canonical(value)]
    return [_canonical(value[key]) if key in value else ABSENT for key in fields]


def _canonical(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return unicodedata.normalize("NFC", text)


def _layout(targets: Sequence[str], values: Sequence[Any]) -> int:
    """The layout in which most of the answers are written; of equally common ones the first."""
    pairs = list(zip(targets, values, strict=True))[:200]
    hits = [
        sum(_dumped(value, place) == target.strip() for target, value in pairs)
        for place in range(len(_LAYOUTS))
    ]
    return hits.index(max(hits))


def _dumped(value: Any, layout: int) -> str:
    indent, separators, escaped = _LAYOUTS[layout]
    return json.dumps(value, indent=indent, separators=separators, ensure_ascii=escaped)


def _refuse_many(choices: Sequence[str]) -> None:
    if len(choices) > MAX_CHOICES:
        raise ValueError(f"{len(choices)} different values are no closed set")
