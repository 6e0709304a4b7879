"""The teacher and the student behind the clients' scripts: the same answers in every API."""

from __future__ import annotations

import json
from typing import Any

from tests.helpers import message_samples, responses_teacher
from tests.helpers.teacher_server import Received, Reply, completion, stream

ANSWER = '{"category":"shipping","urgent":true}'
CALL = {"name": "lookup_order", "arguments": '{"order_id":"A-17"}'}
AFTER_THE_CALL = "Order A-17 is on its way."


def student(request: Received) -> Reply:
    """`mlx_lm.server` with a student that is sure of the answer."""
    return completion(ANSWER, model="default_model", logprobs=[-0.01, -0.02])


def teacher(request: Received) -> Reply:
    """OpenAI, and Anthropic beside it."""
    path = request.path.partition("?")[0]
    body = request.json if request.body else {}
    if path == "/v1/chat/completions":
        return _chat(body)
    if path == "/v1/responses":
        made = (
            responses_teacher.response_stream if body.get("stream") else responses_teacher.response
        )
        return made(ANSWER)
    if path == "/v1/messages":
        return (
            message_samples.streamed(ANSWER) if body.get("stream") else message_samples.said(ANSWER)
        )
    if path == "/v1/embeddings":
        return _json(
            {
                "object": "list",
                "model": "embedder",
                "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
                "usage": {"prompt_tokens": 3, "total_tokens": 3},
            }
        )
    if path == "/v1/completions":
        return _json(
            {
                "id": "cmpl-1",
                "object": "text_completion",
                "created": 1_700_000_000,
                "model": "gpt-4o",
                "choices": [
                    {"index": 0, "text": ANSWER, "logprobs": None, "finish_reason": "stop"}
                ],
                "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
            }
        )
    return _json({"path": request.path})


def _chat(body: dict[str, Any]) -> Reply:
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    if body.get("tools") and body.get("tool_choice") != "none":
        if body["messages"][-1]["role"] == "tool":
            said = AFTER_THE_CALL
            return stream(said, usage=usage) if body.get("stream") else completion(said)
        return _call(body["tools"][0]["function"]["name"], streamed=bool(body.get("stream")))
    return stream(ANSWER, usage=usage) if body.get("stream") else completion(ANSWER)


def _call(name: str, *, streamed: bool) -> Reply:
    """A tool call. What the tool is called decides what its arguments are."""
    arguments = CALL["arguments"] if name == CALL["name"] else ANSWER
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    if not streamed:
        whole = json.loads(completion("").chunks[0])
        whole["choices"][0]["message"].update(content=None, tool_calls=[call])
        whole["choices"][0]["finish_reason"] = "tool_calls"
        return _json(whole)
    template = json.loads(stream("x").chunks[0].removeprefix(b"data: "))
    deltas: list[tuple[dict[str, Any], str | None]] = [
        ({"role": "assistant", "content": None, "tool_calls": [{"index": 0, **call}]}, None),
        ({}, "tool_calls"),
    ]
    lines = []
    for delta, finish in deltas:
        chunk = {**template, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        lines.append(b"data: %b\n\n" % json.dumps(chunk).encode())
    return Reply(
        (*lines, b"data: [DONE]\n\n"),
        headers={"content-type": "text/event-stream"},
        framing="chunked",
    )


def _json(payload: Any) -> Reply:
    return Reply((json.dumps(payload).encode(),))
