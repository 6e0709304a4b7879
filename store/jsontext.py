"""JSON as this project writes it: UTF-8 in every case, whatever text a client or a teacher sent.

And one strict way to read JSON that a client may get.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import msgspec
import orjson
from msgspec import Struct

# A JSON object of somebody else's: of a client, a teacher, a foreign log.
JsonObject = dict[str, Any]
JsonMapping = Mapping[str, Any]

_struct_to_json = msgspec.json.Encoder().encode
_SURROGATE = re.compile("[\ud800-\udfff]")


def to_json(value: Any) -> bytes:
    """The value as one line of JSON; records become objects.

    Half of a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD. Infinite numbers become null.
    """
    try:
        return _struct_to_json(value) if isinstance(value, Struct) else orjson.dumps(value)
    # a lone surrogate, or an integer beyond 64 bits
    except (TypeError, UnicodeEncodeError, OverflowError):
        finite = json.loads(json.dumps(value, default=_plain), parse_constant=lambda _: None)
        text = json.dumps(finite, ensure_ascii=False, separators=(",", ":"))
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text).encode()


def to_json_line(value: Any) -> bytes:
    """The value as one line of JSON, with its end."""
    return to_json(value) + b"\n"


def read_json(text: str) -> Any:
    """The value of a JSON text that every reader reads alike.

    Raises ValueError on anything else: text around it, NaN and infinite numbers, half of a
    surrogate pair, and an object with a key twice, of which some readers take the first and
    some the last. Integers have any size.
    """
    orjson.loads(text)  # stricter than the standard library, which alone can show repeated keys
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
    if isinstance(value, Struct):
        return msgspec.structs.asdict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
