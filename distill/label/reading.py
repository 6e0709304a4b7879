"""What a label student reads of a request: one rule, in training and in service.

The last message is what the answer is about; the turns before it are context, apart from it. Of the
system prompt only what varies is read: what all training rows begin and end with is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PARTS = ("last", "user", "other", "system")
MAX_CHARS = 20_000  # of a part: of a longer one its beginning and its end are read

StudentMessages = Sequence[
    Mapping[str, str]
]  # as store.chat.student_wire.student_messages has them


@dataclass(frozen=True, slots=True)
class SystemFrame:
    """The beginning and the end that the system prompts of a task have in common."""

    prefix: str = ""
    suffix: str = ""

    @classmethod
    def of(cls, texts: Sequence[str]) -> SystemFrame:
        """What all of these begin and end with, cut at white space. Of equal ones, all."""
        distinct = sorted(set(texts))
        if len(distinct) < 2:
            return cls(distinct[0] if distinct else "")
        prefix = _common(distinct)
        prefix = prefix[: _last_space(prefix)]
        rests = [text[len(prefix) :] for text in distinct]
        suffix = _common([rest[::-1] for rest in rests])[::-1]
        return cls(prefix, suffix[len(suffix) - _last_space(suffix[::-1]) :])

    def rest(self, text: str) -> str:
        """What of a system prompt varies; all of one that is not framed so."""
        framed = len(text) >= len(self.prefix) + len(self.suffix)
        if framed and text.startswith(self.prefix) and text.endswith(self.suffix):
            return text[len(self.prefix) : len(text) - len(self.suffix)]
        return text


def system_of(messages: StudentMessages) -> str:
    """The system prompts of a conversation, one below the other."""
    return "\n".join(m["content"] for m in messages if m["role"] == "system")


def parts_of(messages: StudentMessages, frame: SystemFrame) -> dict[str, str]:
    """The texts that are read, by their part of the conversation (PARTS); none is empty.

    `last`: the last message. `user`, `other`: the turns before it, of the user and of anybody else.
    `system`: what varies in the system prompt.
    """
    turns = [m for m in messages if m["role"] != "system"]
    texts = {
        "last": turns[-1]["content"] if turns else "",
        "user": "\n".join(m["content"] for m in turns[:-1] if m["role"] == "user"),
        "other": "\n".join(m["content"] for m in turns[:-1] if m["role"] != "user"),
        "system": frame.rest(system_of(messages)),
    }
    return {part: _within(text) for part in PARTS if (text := texts[part]).strip()}


def _common(texts: Sequence[str]) -> str:
    """What all of these begin with."""
    first, last = min(texts), max(texts)
    ends = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(ends, min(len(first), len(last)))]


def _within(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    return f"{text[: MAX_CHARS // 2]}\n{text[-MAX_CHARS // 2 :]}"


def _last_space(text: str) -> int:
    """How many characters the text has up to its last white space."""
    return next((i + 1 for i in range(len(text) - 1, -1, -1) if text[i].isspace()), 0)
