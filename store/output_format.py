"""Whether an answer is what `response_format` asks for.

The schema comes from a client. It is used to check, never to fetch: a reference to anything outside
of it is not followed, and counts as not met.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson

Check = Callable[[Any], bool]


async def meets_format(text: str, response_format: dict[str, Any] | None) -> bool:
    """Whether the text is valid JSON of the kind that is asked for. Any text will do for `text`."""
    kind = response_format.get("type") if response_format else "text"
    if kind == "text":
        return True
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    if kind == "json_object":
        return isinstance(value, dict)
    schema = _schema_of(response_format) if kind == "json_schema" else None
    if schema is None:
        return False
    # the first use imports jsonschema (0.2 s), so that happens beside the event loop
    check = await asyncio.to_thread(_check, orjson.dumps(schema, option=orjson.OPT_SORT_KEYS))
    return check(value)


def _schema_of(response_format: dict[str, Any] | None) -> dict[str, Any] | None:
    inner = (response_format or {}).get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return schema if isinstance(schema, dict) else None


@lru_cache(maxsize=256)
def _check(schema: bytes) -> Check:
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - only where a student answers
    from referencing import Registry  # noqa: PLC0415

    validator = Draft202012Validator(orjson.loads(schema), registry=Registry())

    def check(value: Any) -> bool:
        try:
            return bool(validator.is_valid(value))
        except Exception:  # a schema that cannot be used: unknown types, outside references
            return False

    return check
