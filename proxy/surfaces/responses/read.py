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

from proxy.surfaces.completion import BOM, UNREAD, Completion, error_type_of, json_text_of
from proxy.surfaces.responses.items import Items
from proxy.surfaces.sse import EventReader
from proxy.surfaces.weight import PIECE, weight
from store.jsontext import JsonObject

_LAST = (
    *("response.completed", "response.incomplete", "response.failed", "response.cancelled"),
    "response.done",  # as some servers call it
)
_ENDS = (*_LAST, "error")
_FAILED = ("response.failed", "response.cancelled")
_END_MARK = re.compile(rb'"(?:response\.(?:completed|incomplete|failed|cancelled|done)|error)"')
_DONE = b"[DONE]"
_ITEM = 16_000  # counted for an item: many take long to be told apart
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
    if response.get("status") in ("failed", "cancelled"):
        completion.error_type = completion.error_type or "error"
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
        kind = item.get("type") or ("message" if "content" in item else None)
        if kind == "message":
            for part in _parts(item.get("content")):
                if not _add_part(part, texts):
                    others.append({"type": "message", "content": [part]})
                annotations += _parts(part.get("annotations"))
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": _arguments(item.get("arguments"))}
            call_id = item.get("call_id") or item.get("id")
            calls.append({"id": call_id, "type": "function", "function": function})
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


def _add_part(part: JsonObject, texts: dict[str, list[str]]) -> bool:
    """False if the part is no text."""
    if part.get("type") == "refusal":
        return _put(texts, "refusal", part.get("refusal"))
    return _put(texts, "content", part.get("text"))


def _put(texts: dict[str, list[str]], name: str, text: Any) -> bool:
    if isinstance(text, str):
        texts.setdefault(name, []).append(text)
    return isinstance(text, str)


def _parts(value: Any) -> list[JsonObject]:
    """The parts of a list, or of a text, which some servers give in place of one."""
    if isinstance(value, str):
        return [{"text": value}]
    parts = value if isinstance(value, list) else []
    return [{"text": p} if isinstance(p, str) else p for p in parts if isinstance(p, str | dict)]


def _arguments(value: Any) -> Any:
    return value if value is None else json_text_of(value)


def _usage(usage: Any) -> JsonObject:
    """The counts under the names that chat completions have for them."""
    if not isinstance(usage, dict):
        return {}
    return {
        "prompt_tokens": usage.get("input_tokens", usage.get("prompt_tokens")),
        "completion_tokens": usage.get("output_tokens", usage.get("completion_tokens")),
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
        self._items = Items()

    def finish(self) -> Completion:
        """The completion as far as it came."""
        self.flush()
        response = {"status": "in_progress", **self._response, **self._last}
        if not response.get("output"):
            response["output"] = self._items.whole()
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
            kind = payload.get("type") or self.name or None
            if kind is None and payload.get("object") == "response":  # without an event around it
                kind, payload = "response.done", {"response": payload}
            if kind in _ENDS or (kind is None and error_type_of(payload)):
                self._end(kind, payload)
            elif not only_end:
                self._take(kind, payload)
        except (ValueError, LookupError, AttributeError, TypeError):
            if not only_end and raw.strip() not in (_DONE, b""):
                self._unread = True
                self.misread()

    def _end(self, kind: str | None, payload: JsonObject) -> None:
        self.done = True
        response = _object(payload.get("response"))
        self.kept += weight(response)
        if kind in _LAST:
            self._last = response
        else:
            self._error = error_type_of(payload) or str(payload.get("code") or "error")
        if kind in _FAILED and not error_type_of(response):
            self._error = "error"

    def _take(self, kind: Any, payload: JsonObject) -> None:
        items, delta = self._items.count, payload.get("delta")
        if self._items.take(kind, payload):
            # of an event with such a text, only that is kept
            self.kept += len(delta) + PIECE if isinstance(delta, str) else weight(payload)
            self.kept += _ITEM * (self._items.count - items)
        elif kind in ("response.created", "response.queued", "response.in_progress"):
            self._response = _object(payload["response"])
            self.kept += weight(payload)


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}
