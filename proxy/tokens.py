"""How many tokens an exchange took: as the answer says, or else estimated and marked as such.

Streams say it only to clients that ask for it (`stream_options.include_usage`). We do not ask in
their place: the teacher would put `usage` into each chunk, and a client gets the teacher's own
bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from proxy.surfaces.completion import Completion
from store.jsontext import JsonMapping

_BYTES_PER_TOKEN = 4  # of English text, JSON and most code
# around each message and before the answer (https://cookbook.openai.com, "How to count tokens")
_TOKENS_A_MESSAGE = 3
_DATA_URL = "data:"
_DATA_URL_BYTES = 4_000  # about what an image costs, whatever its size


class SpentTokens(msgspec.Struct, frozen=True):
    """Tokens in and out; None where nobody answered, or the answer has no words."""

    input: int | None
    output: int | None
    estimated: bool = False  # whether one of the two is

    @property
    def total(self) -> int:
        return (self.input or 0) + (self.output or 0)


def tokens_of(completion: Completion, chat: JsonMapping, unread: int = 0) -> SpentTokens:
    """The tokens of an answer to `chat`, a chat completion.

    `unread`: about how many tokens an answer has that was too large to be read.
    """
    read, written = completion.tokens("prompt_tokens"), completion.tokens("completion_tokens")
    known = read is not None and written is not None
    if known or not (completion.messages or unread):
        return SpentTokens(read, written)
    if read is None:
        asked = [*chat["messages"], chat.get("tools") or chat.get("functions")]
        read = _estimate(asked) + len(asked) * _TOKENS_A_MESSAGE
    if written is None:
        written = unread or _estimate(completion.messages)
    return SpentTokens(read, written, estimated=True)


def _estimate(value: list[Any]) -> int:
    return _text_bytes(value) // _BYTES_PER_TOKEN + 1


def _text_bytes(value: Any) -> int:
    """Bytes of all texts within a value, but for roles."""
    if isinstance(value, str):
        if value.startswith(_DATA_URL):
            return _DATA_URL_BYTES
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, dict):
        return sum(_text_bytes(inner) for name, inner in value.items() if name != "role")
    return sum(map(_text_bytes, value)) if isinstance(value, list) else 0
