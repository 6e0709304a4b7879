"""What a teacher said, put together on the side while its bytes go by.

Pure: bytes in, a Completion out. Nothing here raises on what an upstream sends; what cannot be read
is left out, since the client gets the bytes whatever they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy.surfaces.sse import EventReader

_DONE = b"[DONE]"
_TEXTS = ("content", "refusal", "reasoning_content")  # delta fields whose pieces are joined
_MAX_DONE_LINE = 32


@dataclass(slots=True)
class Completion:
    """A chat completion, whole or as far as it came."""

    response_id: str | None = None
    model: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)  # one a choice
    finish_reasons: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    error_type: str | None = None

    @property
    def total_tokens(self) -> int:
        """In and out, 0 where the answer does not say."""
        return (self.tokens("prompt_tokens") or 0) + (self.tokens("completion_tokens") or 0)

    def tokens(self, name: str, detail: str | None = None) -> int | None:
        """A count from `usage`, or None when it is not there."""
        value = self.usage.get(name)
        if detail is not None and value is not None:
            value = value.get(detail) if isinstance(value, dict) else None
        return value if isinstance(value, int) else None


def read_completion(raw: bytes) -> Completion:
    """The completion in a plain JSON answer; an empty one when it is none."""
    completion = Completion()
    try:
        payload = orjson.loads(raw)
        take_head(completion, payload)
        for choice in payload.get("choices") or ():
            completion.messages.append(choice.get("message") or {})
            if choice.get("finish_reason"):
                completion.finish_reasons.append(str(choice["finish_reason"]))
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        pass
    return completion


class StreamAssembler(EventReader):
    """Reads a streamed completion and joins the chunks of each choice.

    Takes streams that end without `[DONE]`.
    """

    __slots__ = ("_choices", "_completion")

    def __init__(self) -> None:
        super().__init__()
        self._completion = Completion()
        self._choices: dict[int, _Choice] = {}

    def finish(self) -> Completion:
        """The completion as far as it came."""
        self.flush()
        completion = self._completion
        choices = [self._choices[index] for index in sorted(self._choices)]
        completion.messages = [choice.message() for choice in choices]
        completion.finish_reasons = [c.finish_reason for c in choices if c.finish_reason]
        return completion

    def is_end(self, line: bytes) -> bool:
        return len(line) <= _MAX_DONE_LINE and _is_done(line)

    def take_event(self, raw: bytes) -> None:
        try:
            payload = orjson.loads(raw)
            take_head(self._completion, payload)
            for choice in payload.get("choices") or ():
                index = _index(choice)
                known = self._choices.get(index)
                if known is None:
                    known = self._choices[index] = _Choice()
                known.take(choice)
        except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
            pass


class _Choice:
    """One choice of a streamed completion."""

    __slots__ = ("_call", "_other", "_texts", "_tools", "finish_reason")

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._texts: dict[str, list[str]] = {}
        self._tools: dict[int, _Call] = {}
        self._call: _Call | None = None  # the old `function_call`
        self._other: dict[str, Any] = {}

    def take(self, choice: dict[str, Any]) -> None:
        if choice.get("finish_reason"):
            self.finish_reason = str(choice["finish_reason"])
        delta = choice.get("delta") or {"content": choice.get("text")}  # text: a legacy completion
        for name, value in delta.items():
            if value is None:
                continue
            if name in _TEXTS:
                self._texts.setdefault(name, []).append(str(value))
            elif name == "tool_calls":
                for part in value:
                    self._tools.setdefault(_index(part), _Call()).take(part)
            elif name == "function_call":
                self._call = self._call or _Call()
                self._call.take({"function": value})
            else:
                self._other[name] = value

    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None, **self._other}
        for name, parts in self._texts.items():
            message[name] = "".join(parts)
        if self._tools:
            message["tool_calls"] = [self._tools[index].whole() for index in sorted(self._tools)]
        if self._call is not None:
            message["function_call"] = self._call.whole()["function"]
        return message


class _Call:
    """One tool call: its name comes whole, its arguments in pieces."""

    __slots__ = ("_arguments", "_head", "_name")

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._name = ""
        self._arguments: list[str] = []

    def take(self, part: dict[str, Any]) -> None:
        for name, value in part.items():
            if name == "function" and isinstance(value, dict):
                self._name = self._name or value.get("name") or ""
                self._arguments.append(value.get("arguments") or "")
            elif name != "index" and value is not None:
                self._head[name] = value

    def whole(self) -> dict[str, Any]:
        function = {"name": self._name, "arguments": "".join(self._arguments)}
        return {**self._head, "function": function}


def _index(part: dict[str, Any]) -> int:
    index = part.get("index")
    return index if isinstance(index, int) else 0


def error_type_of(payload: Any) -> str | None:
    """`error.type` or `error.code` of an error answer, `"error"` when it says neither."""
    error = payload.get("error") if isinstance(payload, dict) else None
    if not error:
        return None
    if isinstance(error, dict):
        return str(error.get("type") or error.get("code") or "error")
    return "error"


def take_head(completion: Completion, payload: dict[str, Any]) -> None:
    """What stands beside the choices. Azure begins with a chunk in which all of it is empty."""
    completion.response_id = completion.response_id or _text(payload.get("id"))
    completion.model = completion.model or _text(payload.get("model"))
    usage = payload.get("usage")
    if usage and isinstance(usage, dict):
        completion.usage = usage
    if "error" in payload:
        completion.error_type = completion.error_type or error_type_of(payload)


def _text(value: Any) -> str | None:
    return str(value) if value else None


def _is_done(line: bytes) -> bool:
    return line.startswith(b"data:") and line[5:].strip() == _DONE
