"""How a teacher writes its messages besides their text, learned from what it wrote.

A client sends an answer back as part of the next turn, and some teachers refuse a message that they
would not have written themselves: an id of a call in another form, a field that they do not know, a
call without the reasoning or the signature that they put beside it. Pure functions.

The form of ids is a template: `call_{alnum:24}`, `{alnum:9}`, `functions.{name}:{index:1}`.
"""

from __future__ import annotations

import re
import secrets
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from store.jsontext import JsonMapping
from store.records import MessageStyle

_ALPHABETS = {  # the smallest that has all characters seen counts
    "digit": string.digits,
    "hex": string.digits + "abcdef",
    "HEX": string.digits + "ABCDEF",
    "lower": string.digits + string.ascii_lowercase,
    "UPPER": string.digits + string.ascii_uppercase,
    "alnum": string.digits + string.ascii_letters,
}
_HOLE = re.compile(r"\{(\w+)(?::(\d+))?\}")
_RUNS = re.compile(r"[0-9A-Za-z]+|[^0-9A-Za-z]+")
_MIN_RANDOM = 4  # characters: a shorter varying part counts calls
_MAX_ID_CHARS = 200
_MAX_IDS = 500
# fields of a message, a call and a function that need not come back
_PLAIN_MESSAGE = frozenset(
    {"role", "content", "tool_calls", "refusal", "annotations", "function_call", "name"}
)
_PLAIN_CALL = frozenset({"id", "type", "function", "index"})
_PLAIN_FUNCTION = frozenset({"name", "arguments"})
IDLE_FIELDS = ("refusal", "annotations")  # that a student's message may have, with nothing in them


def style_of(messages: Iterable[JsonMapping]) -> MessageStyle:
    """The style of these messages of one teacher, newest first."""
    fields: set[str] = set()
    ids: list[tuple[str, str]] = []
    stateful = False
    for message in messages:
        fields.update(name for name in IDLE_FIELDS if name in message)
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                ids.append(_id_and_name(call))
        stateful = stateful or has_state(message)
    return MessageStyle(
        call_id=id_form(ids[:_MAX_IDS]), fields=sorted(fields), stateful_calls=stateful
    )


def has_state(message: JsonMapping) -> bool:
    """Whether a message calls tools and holds something that a student could not write."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return False
    if _beyond(message, _PLAIN_MESSAGE):
        return True
    for call in calls:
        if isinstance(call, dict):
            function = call.get("function")
            if _beyond(call, _PLAIN_CALL):
                return True
            if isinstance(function, dict) and _beyond(function, _PLAIN_FUNCTION):
                return True
    return False


def _beyond(fields: JsonMapping, plain: frozenset[str]) -> bool:
    return any(name not in plain and _says(value) for name, value in fields.items())


def _says(value: Any) -> bool:
    """Whether there is anything in a value: LiteLLM sends objects in which all is null."""
    if isinstance(value, dict):
        return any(map(_says, value.values()))
    if isinstance(value, list):
        return any(map(_says, value))
    return value not in (None, "", False)


def _id_and_name(call: JsonMapping) -> tuple[str, str]:
    function = call.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    given = call.get("id")
    return (given if isinstance(given, str) else "", name if isinstance(name, str) else "")


# ---- ids of calls --------------------------------------------------------------------------------


def id_form(ids: Sequence[tuple[str, str]]) -> str:
    """The template of most of these ids, each with the name of its function; empty without one."""
    forms = Counter(_shape(one, name) for one, name in ids if 0 < len(one) <= _MAX_ID_CHARS)
    forms.pop("", None)
    if not forms:
        return ""
    chosen = forms.most_common(1)[0][0]
    alike = [_runs(one, name) for one, name in ids if _shape(one, name) == chosen]
    columns = list(zip(*alike, strict=True))
    first = _first_varying(columns)
    return "".join(_template(column, number < first) for number, column in enumerate(columns))


def _runs(one: str, name: str) -> list[str]:
    """An id in runs of letters and digits, and of all else; the function's name is one run."""
    if name and name in one:
        alone = rf"(?<![0-9A-Za-z]){re.escape(name)}(?![0-9A-Za-z])"
        parts = re.split(alone, one, maxsplit=1)
        if len(parts) > 1:
            return [*_RUNS.findall(parts[0]), "{name}", *_RUNS.findall(parts[1])]
    return _RUNS.findall(one)


def _shape(one: str, name: str) -> str:
    """Equal for ids that one template fits; empty for an id that none can be made of."""
    if "{" in one or "}" in one or not one.isprintable():
        return ""
    runs = _runs(one, name)
    counting = [run.isdigit() and len(run) < _MIN_RANDOM for run in runs]
    return "|".join(
        "#" if counts else "x" * len(run) if run.isalnum() else run
        for run, counts in zip(runs, counting, strict=True)
    )


def _first_varying(columns: Sequence[Sequence[str]]) -> int:
    """The first run that is not part of a fixed beginning such as `call_`.

    Of a single id, only letters before a separator are one.
    """
    for number, column in enumerate(columns):
        if column[0] == "{name}" or not column[0].isalnum():
            continue
        last = number == len(columns) - 1
        if len(set(column)) > 1 or last or not column[0].isalpha():
            return number
    return len(columns)


def _template(column: Sequence[str], fixed: bool) -> str:
    one = column[0]
    if fixed or one == "{name}" or not one.isalnum():
        return one
    if all(run.isdigit() and len(run) < _MIN_RANDOM for run in column):
        return f"{{index:{min(map(len, column))}}}"
    seen = set("".join(column))
    for name, alphabet in _ALPHABETS.items():
        if seen.issubset(alphabet):
            return f"{{{name}:{len(one)}}}"
    return one  # letters of another script


def new_id(form: str, *, name: str, index: int) -> str:
    """An id for a call of this function, the answer's `index`-th (0-based)."""

    def fill(hole: re.Match[str]) -> str:
        kind, length = hole.groups()
        if kind == "name":
            return name
        if kind == "index" or kind not in _ALPHABETS:
            return str(index).zfill(int(length or 1))
        return "".join(secrets.choice(_ALPHABETS[kind]) for _ in range(int(length or 0)))

    return _HOLE.sub(fill, form)
