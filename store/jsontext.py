"""JSON as this project writes it: UTF-8 in every case, whatever text a client or a teacher sent."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, is_dataclass
from typing import Any

import orjson

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


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
