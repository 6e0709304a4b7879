"""The common words of several texts, in order: literals, with holes between them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from functools import cached_property
from itertools import groupby, pairwise

from rapidfuzz.distance import LCSseq

from store.chat.shape import BETWEEN, MARK

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_WEEKDAY = r"(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?"
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
# a date in words counts as one word, so that all of it goes into a hole and not the day alone
_DATE = (
    rf"(?:{_WEEKDAY},? (?:the )?)?"
    rf"(?:{_DAY} (?:of )?{_MONTH},? \d{{4}}|{_MONTH} {_DAY},? \d{{4}}|{_MONTH} \d{{4}})\b"
    r"|\d{4}年\d{1,2}月\d{1,2}日"
)
# scripts without spaces: each character is a word
_IDEOGRAM = "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
_IDEOGRAMS = _IDEOGRAM[1:-1]
# a letter or digit; a word may hold the punctuation of numbers, times, addresses and names
_ALNUM = rf"[^\W_{_IDEOGRAMS}]"
_WORD = re.compile(
    rf"{MARK}.?|\s*(?:{_DATE}|{_IDEOGRAM}|{_ALNUM}+(?:[-+:./@_'\u2019]{_ALNUM}+)*|[^\s{MARK}])|\s+",
    re.DOTALL,
)
_TIME = r"\d{1,2}:\d{2}(?::\d{2})?(?:\.\d{1,9})?(?: ?[AaPp]\.?[Mm]\.?)?(?:Z|[+-]\d{2}:?\d{2})?"
_MOMENT = (
    rf"(?:{_DATE}|{_DAY} {_MONTH}|{_MONTH} {_DAY}|{_WEEKDAY}|{_MONTH}|{_TIME}|UTC|GMT"
    r"|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2}))"
)
_CLOCK = re.compile(rf"{_MOMENT}(?:[T,\s]{{1,3}}{_MOMENT})*")


class Skeleton:
    """The words that all texts share, in their order; None is a hole."""

    def __init__(self, parts: Sequence[str | None]) -> None:
        self.parts = parts

    @cached_property
    def literal_chars(self) -> int:
        """Characters that are not in a hole."""
        return sum(len(part) for part in self.parts if part is not None)

    @cached_property
    def borders(self) -> int:
        """How many borders there are between two system prompts."""
        return sum(part == BETWEEN for part in self.parts)

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(part for part in self.parts if part is not None)

    def may_share(self, words: Set[str], share: float) -> bool:
        """Whether this share of the longer text may be common to both: a cheap upper bound."""
        longest = max(_chars(self._words), _chars(words), 1)
        return _chars(self._words & words) >= share * longest


def tokens(text: str) -> list[str]:
    """The words of a text, each with the white space before it; joined they give the text."""
    return _WORD.findall(text)


def merged(skeleton: Skeleton, words: Sequence[str]) -> Skeleton:
    """The longest common subsequence of the skeleton and these words, as a skeleton.

    A common start and end cost nothing. For the rest, time and memory (in bits) grow with the
    product of both lengths.
    """
    parts = skeleton.parts
    head = _same(parts, words)
    tail = min(_same(parts[::-1], words[::-1]), min(len(parts), len(words)) - head)
    before, after = parts[head : len(parts) - tail], words[head : len(words) - tail]
    common: list[str | None] = [*parts[:head]]
    for step in LCSseq.opcodes(before, after):
        common.extend(before[step.src_start : step.src_end] if step.tag == "equal" else (None,))
    common.extend(parts[len(parts) - tail :])
    return Skeleton([p for p, q in pairwise([*common, ""]) if p is not None or q is not None])


def literals_of(skeleton: Skeleton) -> list[str]:
    """The literals: the first at the text's start and the last at its end, with a hole between two.

    Punctuation alone between two holes is not enough to tell them apart: they become one hole.
    """
    runs = [
        (hole, "" if hole else "".join(part or "" for part in run))
        for hole, run in groupby(skeleton.parts, key=lambda part: part is None)
    ]
    literals = [""] if not runs or runs[0][0] else []
    for place, (hole, text) in enumerate(runs):
        inner = 0 < place < len(runs) - 1
        if not hole and (not inner or any(map(str.isalnum, text)) or MARK in text):
            literals.append(text)
    return [*literals, ""] if runs and runs[-1][0] else literals


def trimmed(
    literals: Sequence[str], columns: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Moves a common start or end of a hole's values into the literals around it.

    Cut at punctuation or white space, and before digits, which dates share only for a while. A hole
    whose values are all the same becomes part of the literal.
    """
    texts: list[str] = [literals[0]]
    holes: list[list[str]] = []
    for column, literal in zip(columns, literals[1:], strict=True):
        if len(set(column)) == 1:
            texts[-1] += column[0] + literal
            continue
        head = _edge(_common_start(column))
        rest = [value[len(head) :] for value in column]
        tail = _edge(_common_start([value[::-1] for value in rest]))[::-1]
        holes.append([value[: len(value) - len(tail)] for value in rest])
        texts[-1] += head
        texts.append(tail + literal)
    return texts, holes


def is_clock(value: str) -> bool:
    """Whether this is a date, a time or a part of one, in one of the usual spellings."""
    return _CLOCK.fullmatch(value) is not None


def _chars(words: Iterable[str]) -> int:
    return sum(map(len, words))


def _same(one: Sequence[str | None], other: Sequence[str | None]) -> int:
    """How many leading parts are the same words."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a is None or a != b:
            break
        count += 1
    return count


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)  # all others lie between the two
    count = _same(first, last)
    return first[:count]


def _edge(text: str) -> str:
    """The start of the text up to its last punctuation or white space before any digit."""
    end = 0
    for place, char in enumerate(text):
        if char.isdigit():
            break
        if not char.isalnum():
            end = place + 1
    return text[:end]
