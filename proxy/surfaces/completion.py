"""A teacher's answer as a chat completion, for the log.

Each surface has a reader of its own (`read.py`), which makes one of the bytes that go by. No reader
raises on anything an upstream sends; what it cannot read it leaves out, since the client gets the
bytes in any case.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from store.jsontext import JsonObject

BOM = b"\xef\xbb\xbf"  # some servers begin a text with it
UNREAD = "unread"  # `error_type` of an answer that was passed on and not understood
_MAX_TOKENS = 2**53  # a larger count is no count: JSON's readers differ on it


class Completion(msgspec.Struct):
    """A chat completion, whole or as far as it came."""

    response_id: str | None = None
    model: str | None = None
    messages: list[JsonObject] = msgspec.field(default_factory=list)  # one a choice
    finish_reasons: list[str] = msgspec.field(default_factory=list)
    usage: JsonObject = msgspec.field(default_factory=dict)
    error_type: str | None = None

    def tokens(self, name: str, detail: str | None = None) -> int | None:
        """A count from `usage`, or None when it is not there."""
        value = self.usage.get(name)
        if detail is not None and value is not None:
            value = value.get(detail) if isinstance(value, dict) else None
        return value if type(value) is int and 0 <= value <= _MAX_TOKENS else None


def error_type_of(payload: Any) -> str | None:
    """`error.type` or `error.code` of an error answer, `"error"` when it says neither."""
    error = payload.get("error") if isinstance(payload, dict) else None
    if not error:
        return None
    if isinstance(error, dict):
        return str(error.get("type") or error.get("code") or "error")
    return "error"


def take_head(completion: Completion, payload: JsonObject) -> None:
    """Takes the fields beside the choices. Azure sends a first chunk in which all are empty."""
    completion.response_id = completion.response_id or _text(payload.get("id"))
    completion.model = completion.model or _text(payload.get("model"))
    usage = payload.get("usage")
    if usage and isinstance(usage, dict):
        completion.usage = usage
    if "error" in payload:
        completion.error_type = completion.error_type or error_type_of(payload)


def text_of(value: Any) -> str:
    """A piece of text, which some providers send as a part or a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, dict | str) for part in value):
        return "".join(text_of(p if isinstance(p, str) else p.get("text")) for p in value)
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return str(value["text"])
    return json_text_of(value)


def json_text_of(value: Any) -> str:
    """A piece of JSON text, in place of which some providers send the object itself."""
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()


def _text(value: Any) -> str | None:
    return str(value) if value else None
