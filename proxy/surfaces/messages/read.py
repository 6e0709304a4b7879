"""Reads a teacher's message: a plain answer, or a stream while it goes by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from proxy.surfaces.completion import BOM, UNREAD, Completion, error_type_of
from proxy.surfaces.messages.blocks import Blocks
from proxy.surfaces.sse import EventReader
from proxy.surfaces.weight import PIECE, weight
from store.jsontext import JsonObject

_END = b"message_stop"
_WITHOUT_MEANING = (b"[DONE]", b"")  # data of an event that some servers add
# https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_THOUGHTS = ("thinking", "reasoning")  # types of a block, and the names of its text
_BLOCK = 1_000  # bytes of memory of an empty block, about
_UNREADABLE = (orjson.JSONDecodeError, AttributeError, TypeError, ValueError, KeyError)


def read_message(raw: bytes) -> Completion:
    """The completion in a plain JSON answer; an empty one if it holds none."""
    completion = Completion()
    try:
        payload = orjson.loads(raw.removeprefix(BOM))
        if payload.get("type") == "error" or payload.get("error"):
            completion.error_type = error_type_of(payload) or "error"
        _take_head(completion, payload)
        completion.usage = usage_of(payload.get("usage") or {})
        if "content" in payload:
            completion.messages = [_message(payload["content"])]
        else:
            completion.error_type = completion.error_type or UNREAD
    except _UNREADABLE:
        completion.error_type = completion.error_type or UNREAD
    return completion


class MessageAssembler(EventReader):
    """Reads a streamed message and joins the pieces of each block."""

    __slots__ = ("_blocks", "_completion", "_content", "_usage")

    def __init__(self) -> None:
        super().__init__()
        self._completion = Completion()
        self._blocks = Blocks()
        self._content: Any = None  # of a message that came whole in one event
        self._usage: JsonObject = {}

    def finish(self) -> Completion:
        """The completion as far as it came."""
        self.flush()
        completion = self._completion
        try:
            if self._blocks.begun or self._content or completion.response_id:
                blocks = self._blocks.whole() if self._blocks.begun else self._content or []
                completion.messages = [_message(blocks)]
            completion.usage = usage_of(self._usage)
        except _UNREADABLE:
            completion.error_type = completion.error_type or UNREAD
        return completion

    def is_end(self, line: bytes) -> bool:
        if line.startswith(b"event:"):
            return line[6:].strip() == _END
        if _END not in line or not line.startswith(b"data:"):
            return False
        try:
            return bool(orjson.loads(line[5:])["type"] == _END.decode())
        except _UNREADABLE:
            return False

    def take_event(self, raw: bytes) -> None:
        try:
            payload = orjson.loads(raw)
            kind, blocks = payload.get("type") or self.name, self._blocks.count
            delta = kind == "content_block_delta"  # of which only a text is kept
            self.kept += PIECE + len(raw) if delta else weight(payload)
            self._take(kind, payload)
            self.kept += _BLOCK * (self._blocks.count - blocks)
        except _UNREADABLE:
            if raw.strip() not in _WITHOUT_MEANING:
                self._completion.error_type = self._completion.error_type or UNREAD
                self.misread()

    def _take(self, kind: Any, payload: JsonObject) -> None:
        if kind == "content_block_delta":
            self._blocks.block(payload).take(payload["delta"])
        elif kind == "content_block_start":
            self._blocks.begin(payload.get("index"), payload["content_block"])
        elif kind == "message_start":
            self._take_message(payload["message"])
        elif kind == "message_delta":
            _take_head(self._completion, payload.get("delta") or {})
            self._take_usage(payload)
        elif kind == "message":
            self._take_message(payload)
        elif kind == "error" or (not kind and payload.get("error")):
            self._completion.error_type = error_type_of(payload) or "error"

    def _take_message(self, message: JsonObject) -> None:
        _take_head(self._completion, message)
        self._take_usage(message)
        self._content = message.get("content") or self._content

    def _take_usage(self, payload: JsonObject) -> None:
        """Counts are totals so far, so the highest one counts."""
        for name, count in (payload.get("usage") or {}).items():
            known = self._usage.get(name)
            if count is not None and not (isinstance(known, int) and _is_below(count, known)):
                self._usage[name] = count


def _is_below(count: Any, known: int) -> bool:
    return isinstance(count, int) and count < known


def usage_of(usage: JsonObject) -> JsonObject:
    """A message's `usage` with the names of a chat completion's, which some servers use here too.

    `input_tokens` does not include tokens read from the cache or written to it.
    """
    fresh, generated = usage.get("input_tokens"), usage.get("output_tokens")
    if fresh is None and generated is None and "prompt_tokens" in usage:
        return usage
    if not isinstance(fresh, int) or not isinstance(generated, int):
        return {}
    cached = _count(usage, "cache_read_input_tokens")
    prompt = fresh + cached + _count(usage, "cache_creation_input_tokens")
    thought = _count(usage.get("output_tokens_details") or {}, "thinking_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def _take_head(completion: Completion, payload: JsonObject) -> None:
    """Takes the fields beside the blocks, of a message or of a change to it."""
    for name, value in (("response_id", payload.get("id")), ("model", payload.get("model"))):
        if value and isinstance(value, str):
            setattr(completion, name, value)
    reason = payload.get("stop_reason")
    if isinstance(reason, str):
        completion.finish_reasons = [_FINISH.get(reason, reason)]


def _message(content: Iterable[JsonObject | str]) -> JsonObject:
    """Blocks, or a text, as a chat message. Blocks that have no place in one are kept as such."""
    texts, thoughts, calls, others = [], [], [], []
    for one in [content] if isinstance(content, str) else content:
        block = {"type": "text", "text": one} if isinstance(one, str) else one
        kind = block.get("type") or ("text" if isinstance(block.get("text"), str) else None)
        if kind == "text":
            texts.append(str(block["text"]))
        elif kind in _THOUGHTS:
            thoughts.append(_thought(block))
        elif kind == "tool_use":
            calls.append(_call(block))
        else:
            others.append(block)
    message: JsonObject = {"role": "assistant", "content": "".join(texts) if texts else None}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    if others:
        message["blocks"] = others
    return message


def _thought(block: JsonObject) -> str:
    for name in (*_THOUGHTS, "text"):
        if isinstance(block.get(name), str):
            return str(block[name])
    raise KeyError("a thought")


def _call(block: JsonObject) -> JsonObject:
    given = block.get("input")
    arguments = given if isinstance(given, str) else orjson.dumps(given or {}).decode()
    function = {"name": str(block["name"]), "arguments": arguments or "{}"}
    return {"id": block.get("id"), "type": "function", "function": function}


def _count(usage: JsonObject, name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0
