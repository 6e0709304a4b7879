"""Values as logs write them: JSON within text, times in several forms, counts, paths of fields.

Each `as_…` reads one kind of value, however it is written, and never raises.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from math import inf, isfinite, nan
from typing import Any

import orjson

from store.jsontext import JsonMapping, JsonObject

# a number of this size in the unit before would be a time after the year 5138
_MILLISECONDS_FROM, _MICROSECONDS_FROM, _NANOSECONDS_FROM = 1e11, 1e14, 1e17
_MIN_TIME, _MAX_TIME = 946_684_800.0, 4_102_444_800.0  # the years 2000 and 2100
_SURROGATE = re.compile("[\ud800-\udfff]")
_BETWEEN = re.compile(r"[\s,]*")  # two JSON values in one text


def read_values(text: str) -> list[Any]:
    """The JSON values in a text, one after the other, as lenient writers make them.

    NaN and infinite numbers become null, half of a surrogate pair U+FFFD. Raises ValueError when
    the text is anything else.
    """
    values, at = [], 0
    try:
        while (at := _end_of_space(text, at)) < len(text):
            value, at = DECODER.raw_decode(text, at)
            values.append(without_surrogates(value))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return values


def without_surrogates(value: Any) -> Any:
    """The JSON value with U+FFFD for each half of a surrogate pair, which UTF-8 cannot hold."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text))


def _end_of_space(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def parsed(value: Any) -> Any:
    """The value of a text that is a JSON object or list; any other value unchanged."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return _odd(value)
    return value


def _odd(text: str) -> Any:
    try:
        values = read_values(text)
    except ValueError:
        return text
    return values[0] if len(values) == 1 else text


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
    number = as_number(value.strip().removeprefix("$") if isinstance(value, str) else value)
    return number if number is not None and 0 < number < 1e9 else None


def as_time(value: Any) -> float | None:
    """Seconds since the epoch; None where `logged_time` finds no time."""
    seconds = logged_time(value)
    return seconds if seconds is not None and isfinite(seconds) else None


def logged_time(value: Any) -> float | None:
    """Seconds since the epoch: of s, ms, µs or ns, or of ISO 8601, UTC without a zone.

    None: the log does not say. `nan`: it says something that is no time since 2000. `inf`: a time
    after 2100.
    """
    if value in (None, "", [], {}):
        return None
    seconds = as_number(value)
    if seconds is not None:
        for unit, least in (
            (1e9, _NANOSECONDS_FROM),
            (1e6, _MICROSECONDS_FROM),
            (1e3, _MILLISECONDS_FROM),
        ):
            if seconds >= least:
                seconds = round(seconds / unit, 6)
                break
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip().removesuffix(" UTC"))
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return nan
    if seconds is None or seconds < _MIN_TIME:
        return nan
    return seconds if seconds <= _MAX_TIME else inf


def first_of(row: JsonMapping, *names: str) -> Any:
    """The first of these fields that is not empty; None when all are."""
    return next((row[n] for n in names if row.get(n) not in (None, "", {}, [])), None)


def at_path(row: JsonMapping, path: str) -> Any:
    """The value at `metadata.feature` or the like; None: nothing.

    Also through JSON within text, and where a table has a column of that name.
    """
    if path in row:
        return row[path]
    at = path.find(".")
    while at >= 0:
        inner = as_object(row.get(path[:at])) if path[:at] in row else {}
        if inner and (found := at_path(inner, path[at + 1 :])) is not None:
            return found
        at = path.find(".", at + 1)
    return None
