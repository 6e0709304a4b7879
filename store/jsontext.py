"""JSON as this project writes it: UTF-8 in every case, whatever text a client or a teacher sent.

And as it reads it where a client is to get it: one reading, whoever reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import orjson

# A JSON object of somebody else's: of a client, a teacher, a foreign log.
JsonObject = dict[str, Any]
JsonMapping = Mapping[str, Any]

_SURROGATE = re.compile("[\ud800-\udfff]")


def to_json(value: Any) -> bytes:
    """The value as one line of JSON; records become objects.

    Half of a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD. Infinite numbers become null.
    """
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate, or an integer beyond 64 bits
        finite = json.loads(json.dumps(value, default=_plain), parse_constant=lambda _: None)
        text = json.dumps(finite, ensure_ascii=False, separators=(",", ":"))
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text).encode()


def to_json_line(value: Any) -> bytes:
    """The value as one line of JSON, with its end."""
    return to_json(value) + b"\n"


def read_json(text: str) -> Any:
    """The value of a JSON text of which every reader has the same idea.

    Raises ValueError on anything else: text around it, NaN and infinite numbers, half of a
    surrogate pair, and an object that says a key twice, of which some readers take the first and
    some the last. Integers have any size.
    """
    orjson.loads(text)  # stricter than the standard library, which alone shows the keys
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice")
    return value


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
