"""Writes a student's answer as Anthropic would: as JSON, or as server-sent events."""

from __future__ import annotations

import orjson

from proxy.surfaces.chat.write import call_id
from proxy.surfaces.completion import Completion
from proxy.surfaces.messages.read import usage_of
from proxy.surfaces.sse import event
from store.chat.student_wire import StudentAnswer
from store.jsontext import JsonObject


class StudentMessage:
    """One answer, in either form.

    It ends with `tool_use` or `end_turn`. Requests whose answers end otherwise (`stop_sequence`,
    `max_tokens`) go to the teacher: see proxy.surfaces.messages.view.
    """

    def __init__(self, answer: StudentAnswer, *, trace_id: str, model: str) -> None:
        """`answer`: as store.chat.student_wire.reply_of gives it."""
        self._text = answer.text
        self._calls = [
            (
                call.id or f"toolu_{call_id().removeprefix('call_')}",
                call.name,
                call.arguments_json,
            )
            for call in answer.calls
        ]
        self._usage = {
            "input_tokens": answer.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": answer.output_tokens,
        }
        self._head = {
            "id": f"msg_{trace_id.replace('-', '')}",
            "type": "message",
            "role": "assistant",
            "model": model,  # as the client named it
        }
        self._end = {
            "stop_reason": "tool_use" if self._calls else "end_turn",
            "stop_sequence": None,
        }

    def whole(self) -> bytes:
        """The `message` object."""
        usage = {**self._usage, "service_tier": "standard"}
        return orjson.dumps({**self._head, "content": self._content(), **self._end, "usage": usage})

    def events(self) -> bytes:
        """The stream of events with its end."""
        nothing: JsonObject = {"content": [], "stop_reason": None, "stop_sequence": None}
        begun = {**self._usage, "output_tokens": 1, "service_tier": "standard"}
        events = [
            {"type": "message_start", "message": {**self._head, **nothing, "usage": begun}},
            *self._block_events(),
            {"type": "message_delta", "delta": self._end, "usage": self._usage},
            {"type": "message_stop"},
        ]
        events.insert(2, {"type": "ping"})  # after the first block has begun, as Anthropic does
        return b"".join(map(event, events))

    def completion(self) -> Completion:
        """The same answer for the trace."""
        message: JsonObject = {"role": "assistant", "content": self._text}
        if self._calls:
            calls = [
                {"id": one, "type": "function", "function": {"name": name, "arguments": arguments}}
                for one, name, arguments in self._calls
            ]
            message = {"role": "assistant", "content": None, "tool_calls": calls}
        return Completion(
            response_id=self._head["id"],
            model=self._head["model"],
            messages=[message],
            finish_reasons=["tool_calls" if self._calls else "stop"],
            usage=usage_of(self._usage),
        )

    def _content(self) -> list[JsonObject]:
        if not self._calls:
            return [{"type": "text", "text": self._text}]
        return [
            {"type": "tool_use", "id": one, "name": name, "input": orjson.Fragment(arguments)}
            for one, name, arguments in self._calls
        ]

    def _block_events(self) -> list[JsonObject]:
        """Each block's start, one delta with all of it, and its stop."""
        blocks: list[tuple[JsonObject, JsonObject]] = [
            (
                {"type": "tool_use", "id": one, "name": name, "input": {}},
                {"type": "input_json_delta", "partial_json": arguments},
            )
            for one, name, arguments in self._calls
        ] or [({"type": "text", "text": ""}, {"type": "text_delta", "text": self._text})]
        events: list[JsonObject] = []
        for index, (begun, delta) in enumerate(blocks):
            events += [
                {"type": "content_block_start", "index": index, "content_block": begun},
                {"type": "content_block_delta", "index": index, "delta": delta},
                {"type": "content_block_stop", "index": index},
            ]
        return events
