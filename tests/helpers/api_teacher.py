"""A teacher that speaks every API that is logged, and never refuses: for fuzzed requests.

What a request asks for cannot be relied on there, so the answer is always the same few words, as a
stream where the request says so.
"""

from __future__ import annotations

import json
from typing import Any

from tests.helpers.message_samples import said, streamed
from tests.helpers.responses_teacher import response, response_stream
from tests.helpers.teacher_server import Received, Reply, completion, stream

WORDS = "what the teacher says"
_USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
_TEXT = {
    "id": "cmpl-teacher",
    "object": "text_completion",
    "created": 1_700_000_000,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"index": 0, "text": WORDS, "finish_reason": "stop", "logprobs": None}],
    "usage": _USAGE,
}
_VECTORS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 7, "total_tokens": 7},
}
_PLAIN_AND_STREAMED = {
    "/v1/chat/completions": (completion(WORDS), stream(WORDS, usage=True)),
    "/v1/responses": (response(WORDS), response_stream(WORDS)),
    "/v1/messages": (said(WORDS), streamed(WORDS)),
}


def _json(payload: Any) -> Reply:
    return Reply((json.dumps(payload).encode(),))


_PLAIN = {"/v1/completions": _json(_TEXT), "/v1/embeddings": _json(_VECTORS)}


def in_few_words(request: Received) -> Reply:
    """The answer to a request, whatever it is."""
    path = request.path.partition("?")[0].rstrip("/")
    if request.method == "POST" and path in _PLAIN_AND_STREAMED:
        plain, streamed = _PLAIN_AND_STREAMED[path]
        return streamed if request.json.get("stream") else plain
    if request.method == "POST" and path in _PLAIN:
        return _PLAIN[path]
    return _json({"path": request.path})
