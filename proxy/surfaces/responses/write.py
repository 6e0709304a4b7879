"""Writes a student's answer as the Responses API would: the object, or its typed events.

The object repeats the request's fields as OpenAI's does, with defaults for those that were left
out.
"""

from __future__ import annotations

import time

import orjson

from proxy.routing.tagging import without_tag
from proxy.surfaces.chat.write import call_id
from proxy.surfaces.completion import Completion
from proxy.surfaces.responses.read import completion_of
from proxy.surfaces.sse import event
from store.chat.student_wire import StudentAnswer
from store.files.responses import own_id
from store.jsontext import JsonObject

# Fields of the request that a response repeats, with their defaults.
_REPEATED: JsonObject = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_INNER_DEFAULTS = {
    "json_schema": {"description": None, "strict": False},
    "function": {"description": None, "parameters": None, "strict": True},
}


class StudentResponse:
    """One answer, in either form."""

    def __init__(self, answer: StudentAnswer, body: JsonObject, *, trace_id: str) -> None:
        """`answer`: as store.chat.student_wire.reply_of gives it. `body`: the client's request."""
        now = int(time.time())
        self._begun = {
            "id": own_id("resp", trace_id),
            "object": "response",
            "created_at": now,
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": body["model"],  # as the client named it
            **_repeated(without_tag(body) or body),
            "output": [],
            "usage": None,
        }
        self._response = {
            **self._begun,
            "completed_at": now,
            "status": "completed",
            "output": _output(answer, trace_id),
            "usage": {
                "input_tokens": answer.input_tokens,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": answer.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": answer.input_tokens + answer.output_tokens,
            },
        }

    def whole(self) -> bytes:
        """The `response` object."""
        return orjson.dumps(self._response)

    def events(self) -> bytes:
        """The stream of typed events. It ends with `response.completed`."""
        events: list[JsonObject] = [
            {"type": "response.created", "response": self._begun},
            {"type": "response.in_progress", "response": self._begun},
        ]
        for index, item in enumerate(self._response["output"]):
            events += _events_of_call(index, item) if "call_id" in item else _of_text(index, item)
        events.append({"type": "response.completed", "response": self._response})
        return b"".join(
            event({**payload, "sequence_number": number}) for number, payload in enumerate(events)
        )

    def completion(self) -> Completion:
        """The same answer for the trace."""
        return completion_of(self._response)


def _output(answer: StudentAnswer, trace_id: str) -> list[JsonObject]:
    if not answer.calls:
        text = {"type": "output_text", "annotations": [], "logprobs": [], "text": answer.text}
        return [
            {
                "id": own_id("msg", trace_id),
                "type": "message",
                "status": "completed",
                "content": [text],
                "role": "assistant",
            }
        ]
    return [
        {
            "id": own_id("fc", trace_id, number),
            "type": "function_call",
            "status": "completed",
            "arguments": call.arguments_json,
            "call_id": call.id or call_id(),
            "name": call.name,
        }
        for number, call in enumerate(answer.calls)
    ]


def _repeated(body: JsonObject) -> JsonObject:
    given = {name: value for name, value in body.items() if value is not None}
    text = given.get("text") or {}
    return {
        **{name: given.get(name, default) for name, default in _REPEATED.items()},
        "reasoning": {"effort": None, "summary": None, **given.get("reasoning", {})},
        "text": {
            "format": _with_defaults(text.get("format") or {"type": "text"}),
            "verbosity": text.get("verbosity") or "medium",
        },
        "tools": [_with_defaults(tool) for tool in given.get("tools", ())],
    }


def _with_defaults(named: JsonObject) -> JsonObject:
    """A format or a function with the defaults of its missing fields."""
    defaults = _INNER_DEFAULTS.get(named["type"], {})
    return {**defaults, **{name: value for name, value in named.items() if value is not None}}


def _of_text(index: int, item: JsonObject) -> list[JsonObject]:
    """The events of a message with one text."""
    [part] = item["content"]
    where = {"item_id": item["id"], "output_index": index, "content_index": 0}
    text = {"logprobs": [], **where}
    return [
        _item("added", index, {**item, "status": "in_progress", "content": []}),
        {"type": "response.content_part.added", **where, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **text, "delta": part["text"]},
        {"type": "response.output_text.done", **text, "text": part["text"]},
        {"type": "response.content_part.done", **where, "part": part},
        _item("done", index, item),
    ]


def _events_of_call(index: int, item: JsonObject) -> list[JsonObject]:
    where = {"item_id": item["id"], "output_index": index}
    kind = "response.function_call_arguments"
    arguments = item["arguments"]
    return [
        _item("added", index, {**item, "status": "in_progress", "arguments": ""}),
        {"type": f"{kind}.delta", **where, "delta": arguments},
        {"type": f"{kind}.done", **where, "arguments": arguments, "name": item["name"]},
        _item("done", index, item),
    ]


def _item(what: str, index: int, item: JsonObject) -> JsonObject:
    return {"type": f"response.output_item.{what}", "output_index": index, "item": item}
