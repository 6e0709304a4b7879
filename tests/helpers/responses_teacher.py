"""A teacher that speaks the Responses API: replies for tests/helpers/teacher_server.py.

It knows the responses that it has given, and refuses the ids of others as OpenAI does.
"""

from __future__ import annotations

import json
from typing import Any

from tests.helpers.teacher_server import Received, Reply, error, events

ID = "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b"
_MESSAGE_ID = "msg_67ccd2bf17f0819081ff3bb2cf6508e60bb6a6b452d3795b"


def message(text: str, status: str = "completed") -> dict[str, Any]:
    """An output message."""
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return {
        "id": _MESSAGE_ID,
        "type": "message",
        "status": status,
        "content": [part] if status == "completed" else [],
        "role": "assistant",
    }


def response_object(*output: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A `response` as OpenAI's documentation shows it."""
    return {
        "id": ID,
        "object": "response",
        "created_at": 1741476542,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "gpt-4o-2024-08-06",
        "output": list(output),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 36,
            "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
            "output_tokens": 87,
            "output_tokens_details": {"reasoning_tokens": 2},
            "total_tokens": 123,
        },
        "user": None,
        "metadata": {},
        **changes,
    }


def response(text: str, **changes: Any) -> Reply:
    """A plain response."""
    return Reply((json.dumps(response_object(message(text), **changes)).encode(),))


def event(kind: str, number: int, **fields: Any) -> bytes:
    """One typed event."""
    payload = {"type": kind, **fields, "sequence_number": number}
    return f"event: {kind}\ndata: {json.dumps(payload)}\n\n".encode()


def response_stream(text: str, **changes: Any) -> Reply:
    """A streamed response, a delta a word, an event a chunk."""
    words = [word if n == 0 else f" {word}" for n, word in enumerate(text.split(" "))]
    begun = response_object(status="in_progress", usage=None)
    where = {"item_id": _MESSAGE_ID, "output_index": 0, "content_index": 0}
    part: dict[str, Any] = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    told: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        (
            "response.output_item.added",
            {"output_index": 0, "item": message("", status="in_progress")},
        ),
        ("response.content_part.added", {**where, "part": part}),
        *[("response.output_text.delta", {**where, "delta": w, "logprobs": []}) for w in words],
        ("response.output_text.done", {**where, "text": text, "logprobs": []}),
        ("response.content_part.done", {**where, "part": {**part, "text": text}}),
        ("response.output_item.done", {"output_index": 0, "item": message(text)}),
        ("response.completed", {"response": response_object(message(text), **changes)}),
    ]
    return events(*[event(kind, number, **more) for number, (kind, more) in enumerate(told)])


def last_text(body: dict[str, Any]) -> str:
    """What was said last."""
    asked = body["input"]
    content = asked if isinstance(asked, str) else asked[-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def echo(request: Received) -> Reply:
    """Answers with the last text; other paths with themselves, for ids that it knows."""
    if request.method != "POST" or not request.path.partition("?")[0].endswith("/responses"):
        if "/responses/resp_" in request.path and ID not in request.path:
            return error(404, "Response not found.", type="invalid_request_error")
        return Reply((json.dumps({"path": request.path}).encode(),))
    body = request.json
    if body.get("previous_response_id") not in (None, ID):
        return error(400, "Previous response not found.", code="previous_response_not_found")
    text = f"echo: {last_text(body)}"
    return response_stream(text) if body.get("stream") else response(text)
