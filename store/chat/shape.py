"""The fingerprint of a request's shape, and the hash of its input.

Pure functions, called on the proxy's hot path and again when traces become examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any

import orjson

from store.chat.tools import rules
from store.jsontext import JsonObject

Messages = list[JsonObject]

# How several system prompts are joined to one text: see `system_text`.
MARK = "\x03"  # the control character "end of text", which no prompt uses
BETWEEN = MARK + MARK  # where one prompt ends and the next begins
ESCAPED = MARK + "\x02"  # a MARK of the prompt's own

SYSTEM_ROLES = ("system", "developer")


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


def system_texts(messages: Messages) -> list[str]:
    """The system prompts of a conversation, in their order."""
    return [
        text_of(message.get("content"))
        for message in messages
        if isinstance(message, dict) and message.get("role") in SYSTEM_ROLES
    ]


def system_text(messages: Messages) -> str:
    """The system prompts as one text, different for different lists of prompts.

    A MARK occurs only between two prompts, or at the beginning of ESCAPED.
    """
    return BETWEEN.join(text.replace(MARK, ESCAPED) for text in system_texts(messages))


def fingerprint(body: JsonObject) -> str:
    """Hash of a request's shape: system prompts, tools, response format, teacher model.

    With tools, also `tool_choice` and `parallel_tool_calls` where they are set.
    Returns 16 hex digits. `body` is a chat completion request; unknown or missing parts are fine.
    """
    return _hash([system_texts(body.get("messages") or []), *_rest(body)])


def rest_of_shape(body: JsonObject) -> str:
    """The fingerprint without the system prompts, for prompts that vary: 16 hex digits."""
    return _hash(_rest(body))


def normalised_input(messages: Messages) -> str:
    """The text of a conversation without its system prompt: lower case, white space folded.

    Splits and duplicates are decided on this text, so that two spellings of one input are never in
    two splits.
    """
    turns = []
    for message in messages:
        if isinstance(message, dict) and message.get("role") not in SYSTEM_ROLES:
            turns.append(f"{message.get('role')}: {_folded(text_of(message.get('content')))}")
    return "\n".join(turns)


def input_hash(messages: Messages, values: Sequence[str] = ()) -> str:
    """Hash of the normalised input: 32 hex digits.

    `values`: the values in the holes of the system prompt's template, if it has one. They are input
    too: another date or another name is another input.
    """
    text = normalised_input(messages)
    for value in values:
        text += f"\n{MARK}{_folded(value)}"
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


MAX_BEGINNINGS = 8  # turns of the user by which conversations are told apart


def beginnings(messages: Messages) -> tuple[str, ...]:
    """Hashes of how a conversation begins: with the user's first turn, with the first two, and so
    on, up to MAX_BEGINNINGS of them; 16 hex digits each.

    All requests of one conversation begin alike. A greeting, or examples that stand before each
    input, begin many conversations.
    """
    turns = (
        _folded(text_of(message.get("content")))
        for message in messages
        if isinstance(message, dict) and message.get("role") == "user"
    )
    digest = blake2b(digest_size=8)
    hashes = []
    for turn in islice(turns, MAX_BEGINNINGS):
        digest.update(f"{MARK}{turn}".encode("utf-8", "replace"))
        hashes.append(digest.hexdigest())
    return tuple(hashes)


def input_chars(messages: Messages) -> int:
    """Characters of all messages' text: the length that a certificate's limit speaks of."""
    return sum(len(text_of(m.get("content"))) for m in messages if isinstance(m, dict))


# each byte of ASCII in lower case, and a space for each kind of white space
_PLAIN = bytes(ord(" ") if chr(b).isspace() else ord(chr(b).lower()) for b in range(128)).ljust(256)


def _folded(text: str) -> str:
    """The text in lower case, one space for each run of white space and none around it."""
    if not text.isascii():
        return " ".join(text.split()).lower()
    plain = text.encode().translate(_PLAIN)  # the same, several times faster
    plain = b" ".join(plain.split()) if b"  " in plain else plain.strip()
    return plain.decode("ascii")


def _rest(body: JsonObject) -> list[Any]:
    tools = body.get("tools")
    rest = [tools or body.get("functions"), body.get("response_format"), body.get("model")]
    if tools and (how := rules(body)):  # only then: other requests keep the hash that they had
        rest.append(how)
    return rest


def _hash(parts: list[Any]) -> str:
    return blake2b(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()
