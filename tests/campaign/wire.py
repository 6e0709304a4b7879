"""What a campaign's clients ask, and what the right answer is: for clients, teacher and student."""

from __future__ import annotations

import json
from typing import Any

MODEL = "gpt-4o"
SYSTEM = "Answer with the number of the request."
ATTEMPT = "x-campaign-attempt"  # the header that names an attempt; audits do not have it

JsonObject = dict[str, Any]


def messages(number: str) -> list[JsonObject]:
    """The messages of one attempt. Each has a number of its own."""
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"request {number}"},
    ]


def answer(number: str) -> str:
    """The right answer, by teacher and student alike."""
    return f"answer {number}"


def number_in(body: JsonObject) -> str:
    """The number of the attempt that a request is of."""
    return str(body["messages"][-1]["content"]).split()[-1]


def plain(number: str, padding: str = "") -> bytes:
    """A teacher's plain answer."""
    message = {"role": "assistant", "content": answer(number) + padding, "refusal": None}
    return json.dumps(
        {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": MODEL,
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
    ).encode()


def events(number: str, padding: str = "") -> list[bytes]:
    """A teacher's stream, an event each."""
    deltas: list[tuple[JsonObject, str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        *(({"content": piece}, None) for piece in ("answer", " ", number, padding) if piece),
        ({}, "stop"),
    ]
    return [
        *(
            b"data: %b\n\n" % json.dumps(_chunk(number, delta, end)).encode()
            for delta, end in deltas
        ),
        b"data: [DONE]\n\n",
    ]


def _chunk(number: str, delta: JsonObject, end: str | None) -> JsonObject:
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": end}],
    }


def text_of(body: bytes, *, stream: bool) -> str | None:
    """The text of an answer as a client reads it; None when it is not an answer."""
    try:
        if not stream:
            return str(json.loads(body)["choices"][0]["message"]["content"])
        text, ended = "", False
        for line in body.split(b"\n"):
            if not line.startswith(b"data: "):
                continue
            if line == b"data: [DONE]":
                ended = True
                continue
            for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
                text += choice["delta"].get("content") or ""
        return text if ended else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
