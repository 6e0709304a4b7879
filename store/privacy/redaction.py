"""Redaction of requests and answers, before anything of them is written.

    rules ──▶ matches ──▶ overlapping spans merged ──▶ a placeholder for each span, repeated until
                                                       nothing more matches

Every text is searched: messages, tool calls, definitions, metadata, `user`, and unknown fields.
JSON in a text, such as the arguments of a call, stays JSON. Not searched: the model's name; keys
and values that name a part of the API (`role`, `type`, ids, a function's name) if they look like
names; the bytes of `data:` URLs, which hold no text.

Rules are RE2 expressions, whose time is linear in the text, so no client's text can block a proxy.
Thread-safe. Any failure is a RedactionError: nothing is half redacted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

import orjson

from store.errors import RedactionError, RedactionSlow
from store.jsontext import JsonObject, to_json
from store.privacy.regex import Rule, any_of, compiled, rules_of

if TYPE_CHECKING:
    from store.privacy.settings import PrivacySettings

# (text) → start and end in characters, and the placeholder; never within a placeholder
Finder = Callable[[str], Iterable[tuple[int, int, str]]]

MAX_SECONDS = 5.0  # for one request or answer
_MAX_DEPTH = 300  # JSON within JSON; a request's own is refused before
_MAX_ROUNDS = 4  # of replacing until nothing more matches
_JSON = re.compile(r"\s*[\[{]")
_DATA_URL = re.compile(r"data:[^,\s]{0,200};base64,[A-Za-z0-9+/=_-]*")
_NAMING = frozenset({"call_id", "id", "model", "name", "object", "role", "tool_call_id", "type"})
_A_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,63}")
_LONG_NUMBER = re.compile(r"[0-9]{19}")
_SPEAKERS = frozenset({"system", "developer", "user", "assistant"})  # whose `name` is a person's
# request fields with the API's own keys; keys of other fields, as of `metadata`, are searched
_API = frozenset(
    {
        "audio",
        "function_call",
        "functions",
        "logit_bias",
        "messages",
        "prediction",
        "response_format",
        "stream_options",
        "tool_choice",
        "tools",
    }
)


class Redaction:
    """The rules of a config."""

    def __init__(self, rules: Sequence[Rule], finder: Finder | None = None) -> None:
        self._rules = tuple(rules)
        self._finder = finder
        # for most texts this one search shows that no rule matches
        self._any = compiled(any_of(rules)) if rules else None
        # whether a match in a part of a JSON text is also a match in the whole text
        self._flat = finder is None and not any(rule.whole for rule in rules)

    @property
    def slow(self) -> bool:
        """Whether a short text takes milliseconds."""
        return self._finder is not None

    def view(self, chat: JsonObject, within_s: float = MAX_SECONDS) -> JsonObject:
        """A chat completion request after redaction; the same object if nothing matched.

        Raises RedactionSlow after `within_s`, and RedactionError.
        """
        with _Failing():
            search = self._search(within_s)
            changed = {}
            for name, value in chat.items():
                if name == "model" or isinstance(value, int | float):
                    continue
                new = search.value(value, data=name not in _API)
                if new is not value:
                    changed[name] = new
            return {**chat, **changed} if changed else chat

    def messages(
        self, messages: list[JsonObject], within_s: float = MAX_SECONDS
    ) -> list[JsonObject]:
        """The same of an answer's messages."""
        with _Failing():
            redacted: list[JsonObject] = self._search(within_s).value(messages, data=False)
            return redacted

    def text(self, text: str, within_s: float = MAX_SECONDS) -> str:
        """The same of one text."""
        with _Failing():
            return self._search(within_s).text(text)

    def _search(self, within_s: float) -> _Search:
        until = monotonic() + within_s
        return _Search(self._rules, self._any, self._flat, self._finder, until)


class _Failing:
    """Turns any exception into a RedactionError that quotes nothing of the text."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is TimeoutError:
            raise RedactionSlow from None
        if kind is not None and issubclass(kind, Exception):
            raise RedactionError(f"the redaction failed ({kind.__name__})") from None


@dataclass(frozen=True, slots=True)
class _Search:
    """One pass over a request or an answer. Unchanged values are returned as the same object."""

    rules: tuple[Rule, ...]
    any: Any  # all rules in one
    flat: bool
    finder: Finder | None
    until: float  # time.monotonic()

    def value(self, value: Any, *, data: bool, depth: int = 0) -> Any:
        """`data`: a user's own JSON, whose keys are searched too, not a part of the API.

        Raises ValueError below _MAX_DEPTH, whatever Python's recursion limit is.
        """
        if isinstance(value, str):
            return self.text(value)
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(value, dict):
            return self._object(value, data, depth)
        if isinstance(value, list):
            items, changed = [], False
            for item in value:
                new = self.value(item, data=data, depth=depth + 1)
                changed = changed or new is not item
                items.append(new)
            return items if changed else value
        if data and type(value) in (int, float):
            text = str(value)
            new = self._redact_once(text, False)
            return value if new is text else new
        return value

    def _object(self, value: JsonObject, data: bool, depth: int) -> JsonObject:
        redacted: JsonObject = {}
        changed = False
        speaker = not data and value.get("role") in _SPEAKERS
        for key, item in value.items():
            new_key = self._key(key, data)
            if new_key is not key:
                changed = True
                new_key = _unused_key(new_key, redacted)
            naming = not data and key in _NAMING and not (speaker and key == "name")
            if naming and isinstance(item, str) and _A_NAME.fullmatch(item):
                redacted[new_key] = item
                continue
            new = self.value(item, data=data, depth=depth + 1)
            changed = changed or new is not item
            redacted[new_key] = new
        return redacted if changed else value

    def _key(self, key: str, data: bool) -> str:
        name = _A_NAME.fullmatch(key) is not None
        return key if name and not data else self._fixpoint(key, find=not name)

    def text(self, text: str) -> str:
        """A text, or JSON in one."""
        if _DATA_URL.fullmatch(text):
            return text
        if self.flat and "\\" not in text and self.any.search(text.encode()) is None:
            return text
        try:
            value = _read(text) if _JSON.match(text) else None
        except ValueError:
            value = None
        return self._fixpoint(text) if value is None else self._json(text, value)

    def _json(self, text: str, value: Any) -> str:
        new = self.value(value, data=True)
        plain = self._fixpoint(text, find=False)
        if (new is value and plain is text) or _is_json(plain, new):
            return plain  # the text's own layout, with placeholders
        written = to_json(new).decode()
        plain = self._fixpoint(written, find=False)  # matches that span keys and brackets
        if plain is written or _is_json(plain):
            return plain
        return to_json(self._first_placeholder(written)).decode()

    def _fixpoint(self, text: str, *, find: bool = True) -> str:
        """Redacts until nothing more matches, so that a second redaction changes nothing.

        `find`: use the finder too.
        """
        if _DATA_URL.fullmatch(text):
            return text
        if monotonic() > self.until:
            raise TimeoutError
        new = self._redact_once(text, find)
        if new is text:
            return text
        for _ in range(_MAX_ROUNDS):
            before, new = new, self._replaced(new, self._found(new))
            if new is before:
                return new
        raise RedactionError("the rules never come to an end on a text")

    def _redact_once(self, text: str, find: bool) -> str:
        spans = self._found(text)
        if find and self.finder is not None and text:
            spans += _in_bytes(text, self.finder(text))
        return self._replaced(text, spans)

    def _found(self, text: str) -> list[tuple[int, int, str]]:
        data = text.encode()
        if self.any is None or self.any.search(data) is None:
            return []
        return [
            (start, end, rule.placeholder)
            for rule in self.rules
            for start, end in rule.spans(data, self.until)
        ]

    def _replaced(self, text: str, spans: list[tuple[int, int, str]]) -> str:
        if not spans:
            return text
        data, pieces, at = text.encode(), [], 0
        for start, end, placeholder in _merged(spans):
            pieces += [data[at:start], placeholder.encode()]
            at = end
        new = b"".join([*pieces, data[at:]]).decode()
        return text if new == text else new

    def _first_placeholder(self, text: str) -> str:
        return min(self._found(text))[2]


def _merged(spans: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Spans that overlap as one, with the placeholder of the longest; of the first among equals."""
    merged: list[tuple[int, int, str]] = []
    longest = 0
    for start, end, placeholder in sorted(spans, key=lambda span: span[0]):
        if not merged or start >= merged[-1][1]:
            merged.append((start, end, placeholder))
            longest = end - start
            continue
        begun, ended, kept = merged[-1]
        if end - start > longest:
            longest, kept = end - start, placeholder
        merged[-1] = (begun, max(ended, end), kept)
    return merged


def _in_bytes(text: str, matches: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Spans of characters as spans of UTF-8."""
    spans = list(matches)
    places = sorted({place for start, end, _ in spans for place in (start, end)})
    known, at, size = {}, 0, 0
    for place in places:
        size += len(text[at:place].encode())
        at, known[place] = place, size
    return [(known[start], known[end], placeholder) for start, end, placeholder in spans]


def _unused_key(key: str, taken: JsonObject) -> str:
    """The key, or the key with a number: two names that are redacted stay two."""
    number, free = 2, key
    while free in taken:
        number, free = number + 1, f"{key}_{number}"
    return free


def _read(text: str) -> Any:
    """The value of a JSON text, integers of any size as they are. Raises ValueError."""
    value = orjson.loads(text)
    if not _LONG_NUMBER.search(text):
        return value
    try:
        return json.loads(text)  # slower, and exact
    except RecursionError:
        raise ValueError("nested too deeply") from None


_ANYTHING = object()


def _is_json(text: str, value: Any = _ANYTHING) -> bool:
    """Whether the text is JSON, and if `value` is given, JSON of that value."""
    try:
        parsed = _read(text)
    except ValueError:
        return False
    return value is _ANYTHING or bool(parsed == value)


# ---- from the config -----------------------------------------------------------------------------


def redaction_of(settings: PrivacySettings) -> Redaction | None:
    """The redaction of a config; None without rules.

    Loads Presidio if it is configured, which takes seconds. Raises ConfigError if that fails.
    """
    if not settings.redacts:
        return None
    finder = None
    if settings.presidio is not None:
        from store.privacy.presidio import PresidioFinder  # noqa: PLC0415 - only where it is used

        finder = PresidioFinder(settings.presidio, settings.placeholders)
    return Redaction(rules_of(settings.redact), finder)
