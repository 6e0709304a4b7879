"""Reads a teacher's message: a plain answer, or a stream while it goes by."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from proxy.surfaces.completion import BOM, UNREAD, Completion, error_type_of
from proxy.surfaces.sse import EventReader
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
# a delta's type → the name of its piece, and the block's field that the piece is added to
_PIECES = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "input_json_delta": ("partial_json", "input"),
}
_PASSED_OVER = ("citations_delta",)  # a chat message has no place for it
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

    __slots__ = ("_blocks", "_completion", "_usage")

    def __init__(self) -> None:
        super().__init__()
        self._completion = Completion()
        self._blocks: dict[int, _Block] = {}
        self._usage: JsonObject = {}

    def finish(self) -> Completion:
        """The completion as far as it came."""
        self.flush()
        completion = self._completion
        try:
            if self._blocks or completion.response_id:
                blocks = [self._blocks[index].whole() for index in sorted(self._blocks)]
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
            self._take(payload)
        except _UNREADABLE:
            if raw.strip() not in _WITHOUT_MEANING:
                self._completion.error_type = self._completion.error_type or UNREAD

    def _take(self, payload: JsonObject) -> None:
        kind = payload.get("type")
        if kind == "content_block_delta":
            self._blocks[_index(payload)].take(payload["delta"])
        elif kind == "content_block_start":
            self._blocks[_index(payload)] = _Block(payload["content_block"])
        elif kind == "message_start":
            _take_head(self._completion, payload["message"])
            self._take_usage(payload["message"])
        elif kind == "message_delta":
            _take_head(self._completion, payload.get("delta") or {})
            self._take_usage(payload)
        elif kind == "error":
            self._completion.error_type = error_type_of(payload) or "error"

    def _take_usage(self, payload: JsonObject) -> None:
        """Counts are totals so far, so the last one counts."""
        counts = payload.get("usage") or {}
        self._usage |= {name: count for name, count in counts.items() if count is not None}


class _Block:
    """One block of a streamed message."""

    __slots__ = ("_begun", "_pieces")

    def __init__(self, begun: JsonObject) -> None:
        self._begun = dict(begun)
        self._pieces: dict[str, list[str]] = {}

    def take(self, delta: JsonObject) -> None:
        if delta["type"] in _PASSED_OVER:
            return
        piece, name = _PIECES[delta["type"]]
        self._pieces.setdefault(name, []).append(str(delta[piece]))

    def whole(self) -> JsonObject:
        """The block; a tool's input is the JSON text so far, if there is any."""
        block = self._begun
        for name, pieces in self._pieces.items():
            begun = block.get(name)
            block[name] = (begun if isinstance(begun, str) else "") + "".join(pieces)
        self._pieces = {}
        return block


def usage_of(usage: JsonObject) -> JsonObject:
    """A message's `usage` with the names of a chat completion's.

    `input_tokens` does not include tokens read from the cache or written to it.
    """
    fresh, generated = usage.get("input_tokens"), usage.get("output_tokens")
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


def _message(blocks: Iterable[JsonObject]) -> JsonObject:
    """These blocks as a chat message. Blocks that have no place in one are kept as `blocks`."""
    texts, thoughts, calls, others = [], [], [], []
    for block in blocks:
        kind = block.get("type")
        if kind == "text":
            texts.append(str(block["text"]))
        elif kind == "thinking":
            thoughts.append(str(block["thinking"]))
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


def _call(block: JsonObject) -> JsonObject:
    given = block.get("input")
    arguments = given if isinstance(given, str) else orjson.dumps(given or {}).decode()
    function = {"name": str(block["name"]), "arguments": arguments or "{}"}
    return {"id": block.get("id"), "type": "function", "function": function}


def _index(payload: JsonObject) -> int:
    index = payload["index"]
    if not isinstance(index, int):
        raise TypeError("a block's index")
    return index


def _count(usage: JsonObject, name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0
