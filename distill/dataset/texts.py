"""The texts of requests and answers: what they are, and as prompts to the teacher show them."""

from __future__ import annotations

from store.chat.shape import Messages, system_texts, text_of
from store.jsontext import read_json

MAX_LABEL_CHARS = 80
MAX_SHOWN_CHARS = 1_500  # of one text


def user_text(messages: Messages) -> str:
    """The last thing that the user says: the part of a request that synthetic inputs replace."""
    return text_of(messages[-1].get("content"))


def system_prompt(messages: Messages) -> str:
    """The system prompts, one after the other, for a reader."""
    return "\n".join(system_texts(messages))


def shortened(text: str, most: int = MAX_SHOWN_CHARS) -> str:
    """The text, with its middle left out when it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"


def is_short(text: str) -> bool:
    """Whether a normal text could be a label: one line, and not too long."""
    return len(text) <= MAX_LABEL_CHARS and "\n" not in text


def parsed(text: str) -> object:
    """The JSON value that the text is; None when it is none."""
    try:
        return read_json(text)
    except ValueError:
        return None
