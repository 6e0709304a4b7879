"""Joins the pieces of a streamed response's output to the items of the plain answer.

Servers differ in how they cut a response; what is accepted here was seen:

- items and pieces without an index, several items under one index, another id with each piece;
- items that are only ever told of as done, pieces of an item that was never added;
- texts that come whole at their end and not in pieces, arguments as an object instead of JSON;
- reasoning under several names.
"""

from __future__ import annotations

from typing import Any

from proxy.surfaces.completion import json_text_of, text_of
from store.jsontext import JsonObject

# event → the kind of item that it adds text to, and the field that the text belongs to
_FIELDS = {
    "output_text": ("message", "text"),
    "text": ("message", "text"),
    "refusal": ("message", "refusal"),
    "function_call_arguments": ("function_call", "arguments"),
    "custom_tool_call_input": ("custom_tool_call", "input"),
    "reasoning_summary_text": ("reasoning", "summary"),
    "reasoning_summary": ("reasoning", "summary"),
    "reasoning_text": ("reasoning", "content"),
    "reasoning_content": ("reasoning", "content"),
    "reasoning": ("reasoning", "content"),
}
_DELTAS = {f"response.{name}.delta": place for name, place in _FIELDS.items()}
# event → the same for one that holds the whole text, and the name that the text has there
_WHOLE = {
    f"response.{name}.done": (kind, field, field if kind != "reasoning" else "text")
    for name, (kind, field) in _FIELDS.items()
}


class Items:
    """The output so far, in the order of the items' index, then of their beginning."""

    def __init__(self) -> None:
        self._items: list[_Item] = []

    @property
    def count(self) -> int:
        return len(self._items)

    def whole(self) -> list[JsonObject]:
        return [item.whole() for item in sorted(self._items, key=lambda item: item.index)]

    def take(self, kind: Any, payload: JsonObject) -> bool:
        """Takes an event; False if it says nothing of the output.

        Raises KeyError, TypeError or AttributeError on one that lacks what it should say.
        """
        if kind in _DELTAS:
            item_kind, field = _DELTAS[kind]
            text = _text(field, payload["delta"])
            self._of(payload).add(item_kind, field, _part(payload), text)
        elif kind in _WHOLE:
            item_kind, field, name = _WHOLE[kind]
            if payload.get(name) is not None:
                text = _text(field, payload[name])
                self._of(payload).set_whole(item_kind, field, _part(payload), text)
        elif kind == "response.output_item.added":
            self._added(payload.get("output_index"), _object(payload["item"]))
        elif kind == "response.output_item.done":
            self._done(payload.get("output_index"), _object(payload["item"]))
        else:
            return False
        return True

    def _of(self, payload: JsonObject) -> _Item:
        """The item that a piece belongs to."""
        index, item_id = payload.get("output_index"), payload.get("item_id")
        same = self._same(index, item_id)
        if same is not None:
            return same
        if not isinstance(index, int):
            return self._items[-1] if self._items else self._new(index)
        return self._last_at(index) or self._new(index)

    def _added(self, index: Any, begun: JsonObject) -> None:
        item = self._same(index, begun.get("id"))
        if item is None:
            last = self._last_at(index) if isinstance(index, int) else None
            item = last if last is not None and not last.begun else self._new(index)
        item.begun = begun

    def _done(self, index: Any, ended: JsonObject) -> None:
        item = self._same(index, ended.get("id"))
        if item is None:
            known = self._items
            if isinstance(index, int):
                known = [one for one in known if one.index == index]
            item = next((one for one in known if one.may_end_as(ended)), None) or self._new(index)
        item.ended = ended

    def _same(self, index: Any, item_id: Any) -> _Item | None:
        """The item with this id, at this index if there is one."""
        if not isinstance(item_id, str) or not item_id:
            return None
        for item in reversed(self._items):
            if item.id == item_id and (item.index == index or not isinstance(index, int)):
                return item
        return None

    def _last_at(self, index: int) -> _Item | None:
        return next((item for item in reversed(self._items) if item.index == index), None)

    def _new(self, index: Any) -> _Item:
        after = max((item.index for item in self._items), default=-1) + 1
        item = _Item(index if isinstance(index, int) else after)
        self._items.append(item)
        return item


class _Item:
    """One output item, as far as it came."""

    __slots__ = ("_kind", "_texts", "begun", "ended", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self.begun: JsonObject = {}
        self.ended: JsonObject = {}
        self._kind = ""
        self._texts: dict[tuple[str, int], list[str]] = {}  # by field and part

    @property
    def id(self) -> Any:
        return self.ended.get("id") or self.begun.get("id")

    def may_end_as(self, ended: JsonObject) -> bool:
        """Whether this one has not ended, and is of this kind as far as is known."""
        kind = self.begun.get("type") or self._kind
        return not self.ended and kind in ("", ended.get("type"))

    def add(self, kind: str, field: str, part: int, text: str) -> None:
        self._kind = kind
        self._texts.setdefault((field, part), []).append(text)

    def set_whole(self, kind: str, field: str, part: int, text: str) -> None:
        self._kind = kind
        self._texts[field, part] = [text]

    def whole(self) -> JsonObject:
        """The item as output has it."""
        if self.ended or not self._texts:
            return self.ended or self.begun
        item = {"type": self._kind, **self.begun}
        texts = [(field, "".join(pieces)) for (field, _), pieces in sorted(self._texts.items())]
        if self._kind == "message":
            item["content"] = [
                {"type": "refusal" if field == "refusal" else "output_text", field: text}
                for field, text in texts
            ]
        elif self._kind == "reasoning":
            for field in ("summary", "content"):
                parts = [{"text": text} for known, text in texts if known == field]
                item |= {field: parts} if parts else {}
        else:
            item |= dict(texts)
        return item


def _text(field: str, value: Any) -> str:
    return json_text_of(value) if field in ("arguments", "input") else text_of(value)


def _part(payload: JsonObject) -> int:
    """The number of an item's part that a piece belongs to."""
    for name in ("summary_index", "content_index"):
        if isinstance(payload.get(name), int):
            return int(payload[name])
    return 0


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}
