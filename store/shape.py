"""What makes two requests alike: the fingerprint of their shape and the hash of their input.

Pure functions, called on the proxy's hot path and again when traces become examples.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import orjson

Messages = list[dict[str, Any]]

_SYSTEM_ROLES = ("system", "developer")


def text_of(content: Any) -> str:
    """The text of a message's `content`: a string, or the text parts of a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            part["text"]
            for part in content
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""


def fingerprint(body: dict[str, Any]) -> str:
    """Hash of what fixes a request's shape: system prompts, tools, response format, teacher model.

    Returns 16 hex digits. `body` is a chat completion request; unknown or missing parts are fine.
    """
    parts = [
        [
            text_of(message.get("content"))
            for message in body.get("messages") or []
            if isinstance(message, dict) and message.get("role") in _SYSTEM_ROLES
        ],
        body.get("tools") or body.get("functions"),
        body.get("response_format"),
        body.get("model"),
    ]
    return blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


def normalised_input(messages: Messages) -> str:
    """What the user side of a conversation says: lower case, white space folded, no system prompt.

    Splits and duplicates are decided on this text, so that two spellings of one input never land
    in two splits.
    """
    turns = []
    for message in messages:
        if isinstance(message, dict) and message.get("role") not in _SYSTEM_ROLES:
            text = " ".join(text_of(message.get("content")).split()).lower()
            turns.append(f"{message.get('role')}: {text}")
    return "\n".join(turns)


def input_hash(messages: Messages) -> str:
    """Hash of the normalised input: 32 hex digits."""
    return blake2b(
        normalised_input(messages).encode("utf-8", "replace"), digest_size=16
    ).hexdigest()


def input_chars(messages: Messages) -> int:
    """Characters of all messages' text: the length that a certificate's limit speaks of."""
    return sum(len(text_of(m.get("content"))) for m in messages if isinstance(m, dict))
