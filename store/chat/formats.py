"""Whether an answer matches `response_format`, or arguments a function's `parameters`.

The schema comes from a client: references to anything outside of it are never fetched. An answer
that cannot be checked does not match: for such a reference, an unknown type, an invalid schema.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import orjson

from store.jsontext import JsonMapping, JsonObject, read_json

Check = Callable[[Any], bool]

MAX_CHECKS = 256  # compiled schemas that are kept, the ones used last
_checks: OrderedDict[bytes, Check] = OrderedDict()
_lock = Lock()


async def meets_format(text: str, response_format: JsonMapping | None) -> bool:
    """Whether the text is valid JSON as the format demands. Any text matches `text`.

    Valid is what all parsers read alike: see store.jsontext.read_json.
    """
    kind = response_format.get("type") if response_format else "text"
    if kind == "text":
        return True
    try:
        value = read_json(text)
    except ValueError:
        return False
    if kind == "json_object":
        return isinstance(value, dict)
    schema = _schema_of(response_format) if kind == "json_schema" else None
    return schema is not None and await meets_schema(value, schema)


async def meets_schema(value: Any, schema: JsonMapping) -> bool:
    """Whether a JSON value is valid by the schema (draft 2020-12), its formats included."""
    key = _key(schema)
    if key in _checks:
        return _check(key)(value)
    # the first one imports jsonschema (0.2 s), so that happens beside the event loop
    return (await asyncio.to_thread(_check, key))(value)


def meets_schema_now(value: Any, schema: JsonMapping) -> bool:
    """The same, blocking."""
    return _check(_key(schema))(value)


def _key(schema: JsonMapping) -> bytes:
    try:
        return orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # nested too deeply, or integers beyond 64 bits
        return b"null"  # no schema


def _check(key: bytes) -> Check:
    check = _checks.get(key) or _compiled(key)
    with _lock:  # not held while compiling: the event loop may need another schema
        _checks[key] = check
        _checks.move_to_end(key)
        if len(_checks) > MAX_CHECKS:
            _checks.popitem(last=False)
    return check


def _schema_of(response_format: JsonMapping | None) -> JsonObject | None:
    inner = (response_format or {}).get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return schema if isinstance(schema, dict) else None


def _compiled(schema: bytes) -> Check:
    from store.chat.json_schema import validator  # noqa: PLC0415 - only where a student answers

    try:
        valid = validator(orjson.loads(schema))
    except Exception:  # an invalid schema
        return lambda _: False

    def check(value: Any) -> bool:
        try:
            return bool(valid.is_valid(value))
        except Exception:  # it refers to something outside, or the value is nested too deeply
            return False

    return check
