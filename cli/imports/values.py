"""Values as logs write them: JSON within text, times in several forms, counts, paths of fields.

Each `as_…` reads one kind of value, however it is written, and never raises.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Any

import orjson

from store.jsontext import JsonMapping, JsonObject

_MILLISECONDS_FROM = 1e11  # seconds of this size would be in the year 5138
_MIN_TIME, _MAX_TIME = 946_684_800.0, 4_102_444_800.0  # the years 2000 and 2100


def parsed(value: Any) -> Any:
    """The value of a text that is a JSON object or list; any other value unchanged."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def as_object(value: Any) -> JsonObject:
    """The value as an object, also from JSON text; else an empty one."""
    value = parsed(value)
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The value as a list, also from JSON text; else an empty one."""
    value = parsed(value)
    return value if isinstance(value, list) else []


def as_text(value: Any) -> str | None:
    """A text that is not empty, else None."""
    return value if isinstance(value, str) and value else None


def as_number(value: Any) -> float | None:
    """A finite number, also one written as text; else None. A truth value is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:  # an integer beyond any float
        return None


def as_count(value: Any) -> int | None:
    """A count that the store can hold, also one written as text; else None."""
    number = as_number(value)
    return int(number) if number is not None and 0 <= number < 2**63 else None


def as_cost(value: Any) -> float | None:
    """US dollars; None without a cost, or for 0, which logs write for an unknown price."""
    number = as_number(value)
    return number if number is not None and 0 < number < 1e9 else None


def as_time(value: Any) -> float | None:
    """Seconds since the epoch: of seconds, of milliseconds, or of ISO 8601, UTC without a zone.

    None where a value is no time, or none of this century.
    """
    seconds = as_number(value)
    if seconds is not None:
        seconds = seconds / 1000 if seconds >= _MILLISECONDS_FROM else seconds
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    return seconds if seconds is not None and _MIN_TIME <= seconds <= _MAX_TIME else None


def first_of(row: JsonMapping, *names: str) -> Any:
    """The first of these fields that is not empty; None when all are."""
    return next((row[n] for n in names if row.get(n) not in (None, "", {}, [])), None)


def at_path(row: JsonMapping, path: str) -> Any:
    """The value at `metadata.feature` or the like, also through JSON within text; None: nothing."""
    value: Any = row
    for name in path.split("."):
        value = as_object(value).get(name)
    return value
