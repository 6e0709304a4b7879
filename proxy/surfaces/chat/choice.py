"""Joins the chunks of one choice to the message that a plain answer would have held.

Providers differ in how they cut a message; what is accepted here was seen:

- content as text, or as a list of parts that grow;
- reasoning under several names, as text or as a list of details;
- calls without an index, several calls under one index, a call's name or id repeated with each
  piece, arguments as an object instead of JSON text;
- a whole `message` where a delta is expected.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.surfaces.weight import PIECE, weight
from store.jsontext import JsonObject, read_json

# fields whose pieces are joined
_TEXTS = frozenset(
    {
        "content",
        "refusal",
        "reasoning_content",
        "reasoning",
        "reasoning_text",
        "thinking",
        "thought",
    }
)
_NOT_HEAD = ("index", "id")  # a call's fields that are not taken as they are
_MAX_SEARCHED = 16 * 1024  # bytes of arguments that are parsed to see whether they are whole
_REPEATED = frozenset({"type", "id", "format", "index", "name", "role"})  # of a part: not joined


class Choice:
    """One choice of a streamed completion."""

    __slots__ = ("_call", "_calls", "_other", "_parts", "_texts", "finish_reason", "kept")

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.kept = 0  # bytes of memory, about
        self._texts: dict[str, list[str]] = {}
        self._parts: list[Any] = []  # of a content that is a list
        self._calls = _Calls()
        self._call: _Call | None = None  # the old `function_call`
        self._other: JsonObject = {}

    def take(self, choice: JsonObject) -> None:
        """Takes a chunk's part of this choice. Raises AttributeError or TypeError on no chunk."""
        if choice.get("finish_reason"):
            self.finish_reason = str(choice["finish_reason"])
        for name, value in self._delta(choice).items():
            if value is None:
                continue
            if name in _TEXTS and isinstance(value, str):
                self._texts.setdefault(name, []).append(value)
                self.kept += len(value) + PIECE
                continue
            self.kept += weight(value)
            if name == "content" and isinstance(value, list):
                self._take_parts(value)
            elif name == "tool_calls":
                for part in value:
                    self._calls.take(part)
            elif name == "function_call":
                self._call = self._call or _Call()
                self._call.take({"function": value})
            else:
                self._other[name] = _joined(self._other.get(name), value)

    def _delta(self, choice: JsonObject) -> JsonObject:
        delta = choice.get("delta")
        if delta:
            if not isinstance(delta, dict):
                raise TypeError("a delta")
            return delta
        message = choice.get("message")
        if isinstance(message, dict) and not (self._texts or self._parts or self._calls.begun):
            return message
        return {"content": choice.get("text")}  # of a legacy completion

    def _take_parts(self, parts: list[Any]) -> None:
        texts = self._texts.pop("content", None)
        if texts:
            _extend(self._parts, [{"type": "text", "text": "".join(texts)}])
        _extend(self._parts, parts)

    def message(self) -> JsonObject:
        """The message so far."""
        if self._parts:
            self._take_parts([])  # text that came after the parts
        message: JsonObject = {"role": "assistant", "content": None, **self._other}
        message = _whole(message)
        for name, pieces in self._texts.items():
            message[name] = "".join(pieces)
        if self._parts:
            parts = _whole(self._parts)
            text = _only_text(parts)
            message["content"] = parts if text is None else text
        if self._calls.begun:
            message["tool_calls"] = self._calls.whole()
        if self._call is not None:
            message["function_call"] = self._call.whole()["function"]
        return message


class _Calls:
    """The tool calls of one choice, in the order of their index, then of their beginning."""

    __slots__ = ("_by_index", "_last")

    def __init__(self) -> None:
        self._by_index: dict[int, list[_Call]] = {}
        self._last: tuple[int, _Call] | None = None

    @property
    def begun(self) -> bool:
        return bool(self._by_index)

    def take(self, part: JsonObject) -> None:
        index = part.get("index")
        if not isinstance(index, int):
            index = self._last[0] if self._last is not None else 0
        calls = self._by_index.setdefault(index, [])
        if not calls or calls[-1].ends_before(part):
            calls.append(_Call())
        calls[-1].take(part)
        self._last = (index, calls[-1])

    def whole(self) -> list[JsonObject]:
        return [call.whole() for index in sorted(self._by_index) for call in self._by_index[index]]


class _Call:
    """One tool call: its name comes whole, its arguments in pieces."""

    __slots__ = ("_argument_bytes", "_arguments", "_head", "_name")

    def __init__(self) -> None:
        self._head: JsonObject = {}
        self._name = ""
        self._arguments: list[str] = []
        self._argument_bytes = 0

    def ends_before(self, part: JsonObject) -> bool:
        """Whether a part under the same index begins another call.

        It then names a function, and has an id of its own, or comes after whole arguments. Raises
        ValueError where that would take too long to find out.
        """
        function = part.get("function")
        if not self._name or not isinstance(function, dict) or not function.get("name"):
            return False
        known, new = self._head.get("id"), part.get("id")
        if known and new:
            return bool(known != new)
        if self._argument_bytes > _MAX_SEARCHED:
            raise ValueError(
                "whether arguments of this length are whole is not looked at each time"
            )
        return bool(self._arguments) and _is_whole("".join(self._arguments))

    def take(self, part: JsonObject) -> None:
        for name, value in part.items():
            if name == "function" and isinstance(value, dict):
                self._name = self._name or str(value.get("name") or "")
                self._take_arguments(value.get("arguments"))
            elif name not in _NOT_HEAD and value is not None:
                self._head[name] = value
        self._head |= {"id": part["id"]} if part.get("id") else {}

    def _take_arguments(self, arguments: Any) -> None:
        if arguments is None:
            return
        text = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
        self._arguments.append(text)
        self._argument_bytes += len(text)

    def whole(self) -> JsonObject:
        """The call so far."""
        function = {"name": self._name, "arguments": "".join(self._arguments)}
        return {**self._head, "function": function}


def _is_whole(arguments: str) -> bool:
    try:
        read_json(arguments)
    except ValueError:
        return False
    return True


def _extend(parts: list[Any], more: list[Any]) -> None:
    """Adds parts, each to the last one where it goes on with it."""
    for part in more:
        if parts and _goes_on(parts[-1], part):
            parts[-1] = _joined_fields(parts[-1], part)
        else:
            parts.append(part)


def _goes_on(last: Any, part: Any) -> bool:
    if not isinstance(last, dict) or not isinstance(part, dict):
        return False
    same = ("type", "index") if "index" in part else ("type", "id")
    return "type" in part and all(last.get(name) == part.get(name) for name in same)


class _Pieces:
    """A text that comes in pieces."""

    __slots__ = ("texts",)

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)


def _joined_fields(last: JsonObject, part: JsonObject) -> JsonObject:
    """The last part, changed in place, so that many pieces take linear time."""
    for name, value in part.items():
        if value is not None:
            last[name] = value if name in _REPEATED else _piece(last.get(name), value)
    return last


def _piece(known: Any, value: Any) -> Any:
    if isinstance(value, str):
        if isinstance(known, _Pieces):
            known.texts.append(value)
            return known
        if isinstance(known, str):
            return _Pieces(known, value)
    return _joined(known, value)


def _joined(known: Any, value: Any) -> Any:
    """A field that comes again: lists and objects grow in place, anything else is replaced."""
    if isinstance(value, list):
        parts: list[Any] = known if isinstance(known, list) else []
        _extend(parts, value)
        return parts
    if isinstance(known, dict) and isinstance(value, dict):
        return _joined_fields(known, value)
    return value


def _whole(value: Any) -> Any:
    """The same with whole texts in place of pieces."""
    if isinstance(value, _Pieces):
        return "".join(value.texts)
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list) else value


def _only_text(parts: list[Any]) -> str | None:
    """The text of parts that are nothing but text."""
    if all(isinstance(part, dict) and part.keys() == {"type", "text"} for part in parts):
        texts = [part["text"] for part in parts]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    return None
