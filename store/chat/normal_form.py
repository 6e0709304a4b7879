"""The normal form of an answer: equal for answers that say the same.

Proxy, evaluation, gate, amplification and forgetting compare labels, keys and whole answers. They
all do it by these functions, so that a label which one of them knows is known to the others.
"""

from __future__ import annotations

import json
import unicodedata

from store.chat.tools import read_tool_answer
from store.jsontext import read_json


def normal_text(text: str) -> str:
    """The text after Unicode NFC and without white space around it. Case counts.

    Two labels are the same label when their normal texts are equal.
    """
    return unicodedata.normalize("NFC", text).strip()


def normal_answer(answer: str) -> str:
    """Equal for answers that say the same: JSON however it is laid out, tool calls in any order.

    Anything that is not JSON is compared by its normal text. So is an object that has a key twice,
    since readers disagree about its value.
    """
    try:
        value = read_json(answer)
        if isinstance(value, list) and read_tool_answer(answer) is not None:
            value = sorted(value, key=_sorted_keys)
        return unicodedata.normalize("NFC", _sorted_keys(value))
    except (ValueError, RecursionError):
        return normal_text(answer)


def object_keys(answer: str) -> tuple[str, ...] | None:
    """The sorted keys of a JSON object; None for anything else."""
    try:
        value = read_json(answer)
    except ValueError:
        return None
    return tuple(sorted(value)) if isinstance(value, dict) else None


def _sorted_keys(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
