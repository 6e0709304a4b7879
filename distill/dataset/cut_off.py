"""Finds answers that end too early although the teacher says that they are finished.

Some teachers, and gateways before them, say `stop` of an answer that ran into a token limit or lost
its end on the way. It is half an answer, and nothing to learn. What tells it:

- JSON that cannot be read, or a code block that is never closed, where nearly all of the prompt's
  other answers of that kind (MIN_WHOLE of them, and MIN_OTHERS) are whole.
- A text with as many tokens as the request allows, which ends within a word or a clause. Not a
  label, which is given again and again, nor where a small limit is what most answers need.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from store.chat.normal_form import normal_text

MIN_WHOLE = 0.95  # of the other answers of a kind
MIN_OTHERS = 10
MAX_REPEATS = 2  # of one text: what is given more often is a label, however long
SMALL_LIMIT = 16  # tokens: below, labels and numbers fill the limit
MAX_FULL = 0.2  # share of a prompt's answers that may fill a small limit
FENCE = "```"
_LITERALS = ("true", "false", "null")


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """An answer of the teacher that it says is finished."""

    text: str
    tokens: int | None = None  # of the answer, as the teacher counted them; None: it did not
    limit: int | None = None  # tokens that the request allowed; None: it set no limit


def cut_off(answers: Sequence[GivenAnswer]) -> list[bool]:
    """Which of these answers to one prompt are cut off."""
    broken = _broken(answers, _looks_like_json, _is_json)
    unclosed = _broken(answers, _begins_with_block, _closes_block)
    repeats = Counter(normal_text(one.text) for one in answers)
    limited = [one for one in answers if one.tokens is not None and one.limit]
    full = sum(_is_full(one) for one in limited)
    return [
        no_json
        or no_end
        or (
            _is_full(one)
            and repeats[normal_text(one.text)] <= MAX_REPEATS
            and ((one.limit or 0) >= SMALL_LIMIT or full <= MAX_FULL * len(limited))
            and ends_within(one.text)
        )
        for one, no_json, no_end in zip(answers, broken, unclosed, strict=True)
    ]


def ends_within(text: str) -> bool:
    """Whether a text ends within a word or a clause: with a letter, a digit or a comma, say."""
    last = text.rstrip()[-1:]
    return last.isalnum() or last in {",", ";", ":", "(", "[", "{", "-", "\N{EN DASH}", "/", "\\"}


def is_incomplete_json(text: str) -> bool:
    """Whether a text is the beginning of a JSON object or list, and no more."""
    text = text.strip()
    if not _looks_like_json(text):
        return False
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        rest = text[error.pos :]
        return (
            not rest
            or error.msg.startswith("Unterminated string")
            or any(word.startswith(rest) for word in (*_LITERALS, "-"))
        )
    except RecursionError:
        return False
    return False


def _broken(
    answers: Sequence[GivenAnswer],
    of_kind: Callable[[str], bool],
    whole: Callable[[str], bool],
) -> list[bool]:
    """Which answers of a kind are not whole, where nearly all others are."""
    kind = [of_kind(one.text) for one in answers]
    bad = [mine and not whole(one.text) for one, mine in zip(answers, kind, strict=True)]
    good = sum(kind) - sum(bad)
    if good < MIN_OTHERS or good < MIN_WHOLE * sum(kind):
        return [False] * len(answers)
    return bad


def _is_full(one: GivenAnswer) -> bool:
    return one.tokens is not None and bool(one.limit) and one.tokens >= (one.limit or 0)


def _looks_like_json(text: str) -> bool:
    return text.lstrip().startswith(("{", "["))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)  # as readers do: a key twice or NaN is odd, but not cut off
    except (ValueError, RecursionError):
        return False
    return True


def _begins_with_block(text: str) -> bool:
    return text.lstrip().startswith(FENCE)


def _closes_block(text: str) -> bool:
    return text.count(FENCE) % 2 == 0
