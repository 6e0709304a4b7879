"""Joins the pieces of a streamed message's blocks to the blocks of the plain answer.

Servers differ in how they cut a message; what is accepted here was seen:

- blocks without an index, or several blocks under one index;
- pieces of a block that never began, and a block that begins twice;
- pieces without a type, thoughts under several names, a call's input as an object instead of JSON.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.surfaces.completion import json_text_of, text_of
from store.jsontext import JsonObject

# a delta's type → the block's field that it adds to, and the names that the piece has
_PIECES = {
    "text_delta": ("text", ("text",)),
    "thinking_delta": ("thinking", ("thinking", "reasoning", "text")),
    "reasoning_delta": ("thinking", ("reasoning", "thinking", "text")),
    "signature_delta": ("signature", ("signature",)),
    "input_json_delta": ("input", ("partial_json", "input")),
}
# the name of a piece → the delta's type, where it says none
_TYPES = {
    "text": "text_delta",
    "thinking": "thinking_delta",
    "reasoning": "reasoning_delta",
    "partial_json": "input_json_delta",
    "signature": "signature_delta",
}
# the field of a block that never began → its type
_KINDS = {"text": "text", "thinking": "thinking", "signature": "thinking"}
_PASSED_OVER = ("citations_delta",)  # a chat message has no place for it


class Blocks:
    """The blocks of a message, in the order of their index, then of their beginning."""

    def __init__(self) -> None:
        self._by_index: dict[int, list[Block]] = {}
        self._last = 0
        self.count = 0

    @property
    def begun(self) -> bool:
        return bool(self._by_index)

    def begin(self, index: Any, begun: JsonObject) -> None:
        """Begins a block; one that had begun goes on where both say the same id."""
        if not isinstance(index, int):
            index = self._last + 1 if self._by_index else 0
        blocks = self._by_index.setdefault(index, [])
        self._last = index
        if not blocks or not blocks[-1].begins_again(begun):
            blocks.append(Block(begun))
            self.count += 1

    def block(self, payload: JsonObject) -> Block:
        """The block that a piece belongs to."""
        index = payload.get("index")
        if not isinstance(index, int):
            index = self._last
        blocks = self._by_index.setdefault(index, [])
        self._last = index
        if not blocks:
            blocks.append(Block({}))
            self.count += 1
        return blocks[-1]

    def whole(self) -> list[JsonObject]:
        return [one.whole() for index in sorted(self._by_index) for one in self._by_index[index]]


class Block:
    """One block of a streamed message."""

    __slots__ = ("_begun", "_pieces")

    def __init__(self, begun: JsonObject) -> None:
        self._begun = dict(begun)
        self._pieces: dict[str, list[str]] = {}

    def begins_again(self, begun: JsonObject) -> bool:
        """Whether a block that begins under the same index is this one once more."""
        known = self._begun.get("id")
        if known or begun.get("id"):
            return bool(known == begun.get("id"))
        return self._begun == begun and not self._pieces

    def take(self, delta: Any) -> None:
        """Takes a piece. Raises KeyError, TypeError or AttributeError on what is none."""
        if isinstance(delta, str):
            delta = {"type": "text_delta", "text": delta}
        kind = delta.get("type") or next((_TYPES[name] for name in _TYPES if name in delta), "")
        if kind in _PASSED_OVER:
            return
        field, names = _PIECES[kind]
        piece = next((delta[name] for name in names if delta.get(name) is not None), None)
        if piece is None and not any(name in delta for name in names):
            raise KeyError("a piece")
        text = json_text_of(piece) if field == "input" else text_of(piece)
        self._pieces.setdefault(field, []).append(text)

    def whole(self) -> JsonObject:
        """The block; a tool's input is an object, or the JSON text as far as it came."""
        block = self._begun
        for field, pieces in self._pieces.items():
            begun = block.get(field)
            text = (begun if isinstance(begun, str) else "") + "".join(pieces)
            block[field] = _input(text) if field == "input" else text
            if "type" not in block:
                block["type"] = _KINDS.get(field, "tool_use")
        self._pieces = {}
        return block


def _input(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
