"""Matches a system prompt with a template, and extracts the values in its holes.

Pure, and linear in the prompt's length: no regular expressions, no backtracking, so that no prompt
can be written to block a proxy.
"""

from __future__ import annotations

from collections.abc import Sequence

from store.chat.shape import MARK, Messages, input_hash, rest_of_shape, system_text
from store.jsontext import JsonObject
from store.records import PromptTemplate


def template_of(templates: Sequence[PromptTemplate], body: JsonObject) -> PromptTemplate | None:
    """The first of the templates that this chat completion request is made from."""
    if not templates:
        return None
    text, rest = system_text(body.get("messages") or []), ""
    for template in templates:
        if _ends(template, text):
            rest = rest or rest_of_shape(body)
            if template.shape == rest:
                return template
    return None


def match(template: PromptTemplate, text: str, rest: str) -> bool:
    """Whether a request is made from the template.

    `text`: its system prompts (store.chat.shape.system_text). `rest`: the hash of the rest of its
    shape (store.chat.shape.rest_of_shape). No value may contain a border between system prompts.
    """
    return template.shape == rest and bool(_ends(template, text))


def values(template: PromptTemplate, text: str) -> list[str] | None:
    """The value in each hole, or None when the text does not match the template.

    If it matches in several ways, the later literals are matched as far left as possible. Literals
    and values together are the text again, so different texts have different values.
    """
    ends = _ends(template, text)
    if not ends:
        return None
    texts = []
    start = len(text) - len(template.literals[-1])  # of the literal after the hole
    for place in range(len(template.holes) - 1, -1, -1):
        hole, literal = template.holes[place], template.literals[place]
        end = next(e for e in ends[place] if 0 <= start - e <= hole)
        texts.append(text[end:start])
        start = end - len(literal)
    return texts[::-1]


def hash_of_input(template: PromptTemplate | None, messages: Messages) -> str:
    """The hash of the input of a request that is made from the template, or from none.

    What stands in the template's holes is part of it.
    """
    within = values(template, system_text(messages)) if template is not None else None
    return input_hash(messages, within or ())


def _ends(template: PromptTemplate, text: str) -> list[list[int]]:
    """The positions where each literal but the last can end, ascending; [] without a match.

    All ways to match are followed at once: the set of positions of each literal follows from the
    set of the one before. Only positions within reach of the holes are tried, so the time is linear
    in the text's length plus literals x the holes' lengths.
    """
    literals, holes = template.literals, template.holes
    if not holes or len(holes) != len(literals) - 1:
        return []
    first, *inner, last = literals
    slack = len(text) - sum(map(len, literals))
    if not 0 <= slack <= sum(holes) or not (text.startswith(first) and text.endswith(last)):
        return []
    if text.count(MARK) != sum(literal.count(MARK) for literal in literals):
        return []  # within a hole
    ends = [[len(first)]]
    for literal, hole in zip(inner, holes, strict=False):
        ends.append(_next_ends(text, literal, ends[-1], hole))
        if not ends[-1]:
            return []
    start = len(text) - len(last)
    return ends if any(0 <= start - end <= holes[-1] for end in ends[-1]) else []


def _next_ends(text: str, literal: str, ends: list[int], hole: int) -> list[int]:
    """Where the literal can end when the one before ended at one of `ends`, both ascending."""
    texts = []
    behind = 0  # index of the first end that a hole reaches from
    limit = ends[-1] + hole + len(literal)
    at = text.find(literal, ends[0], limit)
    while at >= 0:
        while ends[behind] + hole < at:
            behind += 1
        if ends[behind] <= at:
            texts.append(at + len(literal))
        at = text.find(literal, max(at + 1, ends[behind]), limit)
    return texts
