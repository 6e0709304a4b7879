"""A streamed response, put together on the side while its events go by.

The last event (`response.completed`, `incomplete` or `failed`) holds the whole response. What comes
before is kept for streams that break off, and for servers whose last event holds no output. Pure:
bytes in, a Completion out; nothing raises on what an upstream sends.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from proxy.surfaces.assemble import Completion, error_type_of
from proxy.surfaces.responses.read import completion_of
from proxy.surfaces.sse import EventReader

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


class ResponseAssembler(EventReader):
    """Reads the typed events of a response. What comes after its end is nothing to us.

    Takes streams that end with `data: [DONE]`, and those that end without any end.
    """

    __slots__ = ("_error", "_items", "_last", "_response")

    def __init__(self) -> None:
        super().__init__()
        self._response: dict[str, Any] = {}  # as it began
        self._last: dict[str, Any] = {}  # as it ended
        self._error: str | None = None
        self._items: dict[int, _Item] = {}

    def finish(self) -> Completion:
        """The completion as far as it came."""
        self.flush()
        response = {"status": "in_progress", **self._response, **self._last}
        if not response.get("output"):
            response["output"] = [self._items[index].whole() for index in sorted(self._items)]
        completion = completion_of(response)
        completion.error_type = completion.error_type or self._error
        return completion

    def is_end(self, line: bytes) -> bool:
        line = line.rstrip(b"\r")
        if not line.startswith(b"data:") or not line.endswith((b"}", b"]", b" ")):
            return False
        data = line[5:]
        if _END_MARK.search(data):  # an answer may say these words too
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
            pass

    def _end(self, kind: str | None, payload: dict[str, Any]) -> None:
        self.done = True
        response = _object(payload.get("response"))
        if kind in _LAST:
            self._last = response
        else:
            self._error = error_type_of(payload) or str(payload.get("code") or "error")
        if kind == "response.failed" and not error_type_of(response):
            self._error = "error"

    def _take(self, kind: Any, payload: dict[str, Any]) -> None:
        if kind in _DELTAS:
            self._item(payload).add(*_DELTAS[kind], str(payload["delta"] or ""))
        elif kind == "response.output_item.added":
            self._item(payload).begun = _object(payload["item"])
        elif kind == "response.output_item.done":
            self._item(payload).ended = _object(payload["item"])
        elif kind in ("response.created", "response.queued", "response.in_progress"):
            self._response = _object(payload["response"])

    def _item(self, payload: dict[str, Any]) -> _Item:
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
        self.begun: dict[str, Any] = {}
        self.ended: dict[str, Any] = {}
        self._kind = ""
        self._texts: dict[str, list[str]] = {}

    def add(self, kind: str, field: str, text: str) -> None:
        self._kind = kind
        self._texts.setdefault(field, []).append(text)

    def whole(self) -> dict[str, Any]:
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


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
