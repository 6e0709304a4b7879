"""Reads a teacher's chat completion: a plain answer, or a stream while it goes by."""

from __future__ import annotations

import orjson

from proxy.surfaces.completion import Completion, take_head
from proxy.surfaces.sse import EventReader
from store.jsontext import JsonObject

_DONE = b"[DONE]"
_TEXTS = ("content", "refusal", "reasoning_content")  # delta fields whose pieces are joined
_MAX_DONE_LINE = 32


def read_completion(raw: bytes) -> Completion:
    """The completion in a plain JSON answer; an empty one if it holds none."""
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


class CompletionAssembler(EventReader):
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
        self._other: JsonObject = {}

    def take(self, choice: JsonObject) -> None:
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

    def message(self) -> JsonObject:
        message: JsonObject = {"role": "assistant", "content": None, **self._other}
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
        self._head: JsonObject = {}
        self._name = ""
        self._arguments: list[str] = []

    def take(self, part: JsonObject) -> None:
        for name, value in part.items():
            if name == "function" and isinstance(value, dict):
                self._name = self._name or value.get("name") or ""
                self._arguments.append(value.get("arguments") or "")
            elif name != "index" and value is not None:
                self._head[name] = value

    def whole(self) -> JsonObject:
        function = {"name": self._name, "arguments": "".join(self._arguments)}
        return {**self._head, "function": function}


def _index(part: JsonObject) -> int:
    index = part.get("index")
    return index if isinstance(index, int) else 0


def _is_done(line: bytes) -> bool:
    return line.startswith(b"data:") and line[5:].strip() == _DONE
