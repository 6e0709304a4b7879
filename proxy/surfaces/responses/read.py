"""Reads a teacher's response: a plain answer, or a stream while it goes by.

One response is one choice: the texts of its messages are the content, its calls the tool calls, the
summaries of its reasoning the reasoning content. Items of other kinds stay in `items`.

The last event of a stream (`response.completed`, `incomplete` or `failed`) holds the whole
response. The events before it are kept for streams that break off, and for servers whose last event
holds no output.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from proxy.surfaces.completion import BOM, UNREAD, Completion, error_type_of
from proxy.surfaces.sse import EventReader
from store.jsontext import JsonObject

_LAST = ("response.completed", "response.incomplete", "response.failed")
_ENDS = (*_LAST, "error")
_END_MARK = re.compile(rb'"(?:response\.(?:completed|incomplete|failed)|error)"')
_DONE = b"[DONE]"
# Event → the kind of item that it adds text to, and the field that the text belongs to.
_DELTAS = {
    "response.output_text.delta": ("message", "text"),
    "response.refusal.delta": ("message", "refusal"),
    "response.function_call_arguments.delta": ("function_call", "arguments"),
    "response.custom_tool_call_input.delta": ("custom_tool_call", "input"),
    "response.reasoning_summary_text.delta": ("reasoning", "summary"),
    "response.reasoning_text.delta": ("reasoning", "content"),
}
_JOINED_WITH = {"reasoning_content": "\n\n"}  # other texts are joined without anything
# Status → the finish reasons that say the same, where a response is not `completed`.
_INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}


def read_response(raw: bytes) -> Completion:
    """The response in a plain JSON answer; an empty completion if it holds none."""
    try:
        return completion_of(orjson.loads(raw.removeprefix(BOM)))
    except orjson.JSONDecodeError:
        return Completion(error_type=UNREAD)


def completion_of(response: Any) -> Completion:
    """A `response` object, or an error, as a completion. Never raises."""
    if not isinstance(response, dict):
        return Completion(error_type=UNREAD)
    completion = Completion(
        response_id=_text(response.get("id")),
        model=_text(response.get("model")),
        error_type=error_type_of(response),
        usage=_usage(response.get("usage")),
    )
    output = response.get("output")
    if not isinstance(output, list):
        completion.error_type = completion.error_type or UNREAD
    if isinstance(output, list) and output:
        message = _message([item for item in output if isinstance(item, dict)])
        completion.messages = [message]
        finish = _finish_reason(response, bool(message.get("tool_calls")))
        completion.finish_reasons = [finish] if finish else []
    return completion


def _finish_reason(response: JsonObject, calls: bool) -> str | None:
    """None: it is not finished, or it failed."""
    status = response.get("status", "completed")
    if status == "completed":
        return "tool_calls" if calls else "stop"
    if status == "incomplete":
        details = response.get("incomplete_details")
        reason = str((details.get("reason") if isinstance(details, dict) else None) or status)
        return _INCOMPLETE.get(reason, reason)
    return None


def _message(output: list[JsonObject]) -> JsonObject:
    texts: dict[str, list[str]] = {}
    calls: list[JsonObject] = []
    annotations: list[Any] = []
    others: list[JsonObject] = []
    for item in output:
        kind = item.get("type")
        if kind == "message":
            for part in _parts(item.get("content")):
                _add_part(part, texts)
                annotations += _parts(part.get("annotations"))
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            calls.append({"id": item.get("call_id"), "type": "function", "function": function})
        elif kind == "custom_tool_call":
            custom = {"name": item.get("name"), "input": item.get("input")}
            calls.append({"id": item.get("call_id"), "type": "custom", "custom": custom})
        elif kind == "reasoning":
            for part in _parts(item.get("summary")) + _parts(item.get("content")):
                _put(texts, "reasoning_content", part.get("text"))
        else:
            others.append(item)
    message: JsonObject = {"role": "assistant", "content": None}
    message |= {name: _JOINED_WITH.get(name, "").join(parts) for name, parts in texts.items()}
    more = {"tool_calls": calls, "annotations": annotations, "items": others}
    return message | {name: value for name, value in more.items() if value}


def _add_part(part: JsonObject, texts: dict[str, list[str]]) -> None:
    if part.get("type") == "refusal":
        _put(texts, "refusal", part.get("refusal"))
    else:
        _put(texts, "content", part.get("text"))


def _put(texts: dict[str, list[str]], name: str, text: Any) -> None:
    if isinstance(text, str):
        texts.setdefault(name, []).append(text)


def _parts(value: Any) -> list[JsonObject]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _usage(usage: Any) -> JsonObject:
    """The counts under the names that chat completions have for them."""
    if not isinstance(usage, dict):
        return {}
    return {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "total_tokens": usage.get("total_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }


def _text(value: Any) -> str | None:
    return str(value) if value else None


class ResponseAssembler(EventReader):
    """Reads the typed events of a response. Bytes after its end are ignored.

    Accepts streams that end with `data: [DONE]`, and those without an end mark.
    """

    __slots__ = ("_error", "_items", "_last", "_response", "_unread")

    def __init__(self) -> None:
        super().__init__()
        self._response: JsonObject = {}  # as it began
        self._last: JsonObject = {}  # as it ended
        self._error: str | None = None
        self._unread = False  # an event was not understood
        self._items: dict[int, _Item] = {}

    def finish(self) -> Completion:
        """The completion as far as it came."""
        self.flush()
        response = {"status": "in_progress", **self._response, **self._last}
        if not response.get("output"):
            response["output"] = [self._items[index].whole() for index in sorted(self._items)]
        completion = completion_of(response)
        completion.error_type = completion.error_type or self._error
        if self._unread and not self._last.get("output"):  # which would have said all
            completion.error_type = completion.error_type or UNREAD
        return completion

    def is_end(self, line: bytes) -> bool:
        line = line.rstrip(b"\r")
        if not line.startswith(b"data:") or not line.endswith((b"}", b"]", b" ")):
            return False
        data = line[5:]
        if _END_MARK.search(data):  # an answer's text may contain these words too
            self._read(data, only_end=True)
        return self.done or data.strip() == _DONE

    def take_event(self, raw: bytes) -> None:
        if not self.done:
            self._read(raw)

    def _read(self, raw: bytes, *, only_end: bool = False) -> None:
        try:
            payload = orjson.loads(raw)
            kind = payload.get("type")
            if kind in _ENDS or (kind is None and error_type_of(payload)):
                self._end(kind, payload)
            elif not only_end:
                self._take(kind, payload)
        except (ValueError, LookupError, AttributeError, TypeError):
            if not only_end and raw.strip() not in (_DONE, b""):
                self._unread = True

    def _end(self, kind: str | None, payload: JsonObject) -> None:
        self.done = True
        response = _object(payload.get("response"))
        if kind in _LAST:
            self._last = response
        else:
            self._error = error_type_of(payload) or str(payload.get("code") or "error")
        if kind == "response.failed" and not error_type_of(response):
            self._error = "error"

    def _take(self, kind: Any, payload: JsonObject) -> None:
        if kind in _DELTAS:
            self._item(payload).add(*_DELTAS[kind], str(payload["delta"] or ""))
        elif kind == "response.output_item.added":
            self._item(payload).begun = _object(payload["item"])
        elif kind == "response.output_item.done":
            self._item(payload).ended = _object(payload["item"])
        elif kind in ("response.created", "response.queued", "response.in_progress"):
            self._response = _object(payload["response"])

    def _item(self, payload: JsonObject) -> _Item:
        index = payload.get("output_index")
        number = index if isinstance(index, int) else 0
        item = self._items.get(number)
        if item is None:
            item = self._items[number] = _Item()
        return item


class _Item:
    """One output item, as far as it came."""

    __slots__ = ("_kind", "_texts", "begun", "ended")

    def __init__(self) -> None:
        self.begun: JsonObject = {}
        self.ended: JsonObject = {}
        self._kind = ""
        self._texts: dict[str, list[str]] = {}

    def add(self, kind: str, field: str, text: str) -> None:
        self._kind = kind
        self._texts.setdefault(field, []).append(text)

    def whole(self) -> JsonObject:
        """The item as output has it."""
        if self.ended or not self._texts:
            return self.ended or self.begun
        item = {"type": self._kind, **self.begun}
        texts = {field: "".join(parts) for field, parts in self._texts.items()}
        if self._kind == "message":
            item["content"] = [
                {"type": "refusal" if field == "refusal" else "output_text", field: text}
                for field, text in texts.items()
            ]
        elif self._kind == "reasoning":
            item |= {field: [{"text": text}] for field, text in texts.items()}
        else:
            item |= texts
        return item


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}
