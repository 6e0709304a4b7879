"""What a teacher answers through the Messages API: replies for the scriptable teacher."""

from __future__ import annotations

import json
from typing import Any

from proxy.surfaces.sse import event
from tests.helpers.teacher_server import Received, Reply, completion, events

MODEL = "claude-sonnet-4-5-20250929"
HEAD = {"id": "msg_teacher", "type": "message", "role": "assistant", "model": MODEL}
USAGE = {"input_tokens": 7, "cache_read_input_tokens": 2, "output_tokens": 3}
# a config whose teacher is called through the LiteLLM child
LITELLM_ENTRY = {"model_name": "claude", "litellm_params": {"model": "anthropic/claude-x"}}


def litellm_settings(url: str) -> dict[str, Any]:
    """What `start_proxy` is told to have its teacher at `url` as the LiteLLM child."""
    runtime = {"litellm_url": url, "litellm_key": "sk-litellm-master"}
    return {"model_list": [LITELLM_ENTRY], "runtime": runtime}


def message(*blocks: dict[str, Any], stop_reason: str = "end_turn") -> Reply:
    """A plain message of these blocks."""
    end = {"stop_reason": stop_reason, "stop_sequence": None, "usage": USAGE}
    return Reply((json.dumps({**HEAD, "content": list(blocks), **end}).encode(),))


def said(text: str) -> Reply:
    """A plain message in words."""
    return message({"type": "text", "text": text})


def streamed(text: str) -> Reply:
    """A streamed message, an event a chunk and a delta a word."""
    words = [word if n == 0 else f" {word}" for n, word in enumerate(text.split(" "))]
    begun = {**HEAD, "content": [], "stop_reason": None, "stop_sequence": None}
    payloads: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**begun, "usage": {**USAGE, "output_tokens": 1}}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {"type": "ping"},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": word},
            }
            for word in words
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": len(words)},
        },
        {"type": "message_stop"},
    ]
    return events(*map(event, payloads))


def refused(status: int, kind: str, text: str) -> Reply:
    """An error as Anthropic gives it."""
    payload = {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_t"}
    return Reply((json.dumps(payload).encode(),), status=status).with_headers(request_id="req_t")


def echo(request: Received) -> Reply:
    """Answers a Messages request with the last message's text, and anything else with a count."""
    if request.path.split("?")[0] != "/v1/messages":
        return Reply((b'{"input_tokens": 11}',))
    body = request.json
    content = body["messages"][-1]["content"]
    text = f"echo: {content if isinstance(content, str) else content[-1]['text']}"
    return streamed(text) if body.get("stream") else said(text)


def sure(text: str, **more: Any) -> Reply:
    """A student's answer, with how likely its tokens were."""
    return completion(text, model="default_model", logprobs=[-0.1, -0.02], **more)
