"""Recognises system prompts that vary from request to request: a date, a name, an id, a profile.

Such a varying part is input. An edited prompt, in contrast, is another version, with a fingerprint
of its own. The rules that tell the two apart; a doubtful prompt counts as a version:

- A hole takes many values. A place with few values, or with one value most of the time, is one
  where the prompt was edited: the prompts are grouped by that value.
- Values alternate. Prompts that follow each other, each used for a while, are versions, unless
  they differ in a date or a time only.
- Values are short, and most of the prompt is constant.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import orjson

from distill.dataset.common_text import Skeleton, is_clock, literals_of, merged, tokens, trimmed
from store.chat.prompt_templates import match, values
from store.chat.shape import BETWEEN
from store.jsontext import JsonObject
from store.records import PromptTemplate

MIN_DISTINCT = 8  # different prompts that make a template, and different values that make a hole
MAX_OF_ONE = 0.5  # share of the requests that may have the same prompt
LITERAL_SHARE = 0.5  # of the longest prompt that must be literal
LITERAL_CHARS = 16  # that must be literal in any case
ANY = 10**9  # characters: the length of a hole without a limit
MAX_HOLES = 16
MAX_VALUE_CHARS = 64  # characters
MAX_PROFILE_CHARS = 240  # the same, where almost each request brings a prompt of its own
PROMPTS_COMPARED = 300  # the newest under one shape; the others only count
MAX_WORDS = 10_000  # of a prompt: a comparison takes the square of this in bits of memory
MAX_GROUPS = 12  # of similar prompts, under one shape
MAX_SHOWN_LITERAL = 120  # characters of a literal in a run's history
HOLE = "\N{HORIZONTAL ELLIPSIS}"  # stands for what varies in a prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenShape:
    """A fingerprint in the recent traffic of a task, answered by teacher or student."""

    fingerprint: str
    text: str  # its system prompts, as store.chat.shape.system_text joins them
    rest: str  # store.chat.shape.rest_of_shape
    requests: int
    recent: int = 0  # of those, how many are among the newest, which decide which shapes count
    first_at: float = 0.0
    last_at: float = 0.0


def recognise(seen: Sequence[SeenShape]) -> list[PromptTemplate]:
    """The templates of these prompts, the one with the most requests first.

    The order of `seen` does not matter.
    """
    by_rest: defaultdict[tuple[str, int], list[SeenShape]] = defaultdict(list)
    for shape in seen:
        if shape.text:
            by_rest[shape.rest, shape.text.count(BETWEEN)].append(shape)
    templates: dict[str, PromptTemplate] = {}
    requests: Counter[str] = Counter()
    for (rest, _), shapes in sorted(by_rest.items()):
        shapes.sort(key=lambda s: (-s.last_at, s.fingerprint))
        for members in _alike(shapes[:PROMPTS_COMPARED]):
            for template in _templates(members):
                twin = templates.get(template.template_id, template)  # of another group
                holes = [max(pair) for pair in zip(template.holes, twin.holes, strict=True)]
                wider = replace(template, holes=holes)
                matching = [s for s in shapes if match(wider, s.text, rest)]
                templates[template.template_id] = replace(wider, distinct=len(matching))
                requests[template.template_id] = sum(s.requests for s in matching)
    return sorted(templates.values(), key=lambda t: (-requests[t.template_id], t.template_id))


def skeleton(template: PromptTemplate, *, max_literal: int | None = None) -> str:
    """The template for people to read: 'Today is …. You route requests.'

    `max_literal`: characters of a literal, whose middle is left out where it is longer.
    """
    literals = [literal.replace(BETWEEN, "\n") for literal in template.literals]
    if max_literal is not None:
        half = max_literal // 2
        literals = [
            t if len(t) <= max_literal else f"{t[:half]} [cut] {t[-half:]}" for t in literals
        ]
    return HOLE.join(literals)


def summary(template: PromptTemplate) -> JsonObject:
    """A template as the history of a run stores it."""
    return {
        "template_id": template.template_id,
        "prompts": template.distinct,
        "skeleton": skeleton(template, max_literal=MAX_SHOWN_LITERAL),
        "holes": template.holes,
    }


class _Group:
    """Similar prompts, and their common words."""

    def __init__(self, first: SeenShape, words: list[str]) -> None:
        self.longest = len(first.text)
        self.size = 1
        self._rest = first.rest
        self._take(Skeleton(words))

    def add(self, shape: SeenShape, words: list[str], share: float = 0.0) -> bool:
        """Adds a prompt if this share of the longest stays common. Returns whether it did."""
        longest = max(self.longest, len(shape.text))
        if not self.fits(shape):
            if not self._common.may_share(frozenset(words), share):
                return False
            common = merged(self._common, words)
            if common.literal_chars < share * longest or common.borders != self._common.borders:
                return False
            self._take(common)
        self.longest = longest
        self.size += 1
        return True

    def fits(self, shape: SeenShape) -> bool:
        """Whether the prompt has all of the literals, with any text between them."""
        return values(self.loose, shape.text) is not None

    def _take(self, common: Skeleton) -> None:
        self._common = common
        self.literals = literals_of(common)
        self.loose = _template(self._rest, self.literals, [ANY] * (len(self.literals) - 1))


def _alike(shapes: Sequence[SeenShape]) -> list[list[SeenShape]]:
    """Groups of prompts that share most of their text; a prompt is in at most one."""
    groups: list[_Group] = []
    for shape in shapes:
        words = tokens(shape.text)
        if len(words) > MAX_WORDS or any(g.add(shape, words, LITERAL_SHARE) for g in groups):
            continue
        if len(groups) < MAX_GROUPS:
            groups.append(_Group(shape, words))
    # again: an early prompt may fit the literals that were found later
    groups.sort(key=lambda g: -g.size)
    members: defaultdict[int, list[SeenShape]] = defaultdict(list)
    for shape in shapes:
        place = next((n for n, group in enumerate(groups) if group.fits(shape)), None)
        if place is not None:
            members[place].append(shape)
    return list(members.values())


def _templates(members: list[SeenShape]) -> Iterator[PromptTemplate]:
    """The templates of similar prompts: one, or one for each version, or none."""
    if len(members) < MIN_DISTINCT:
        return
    group = _Group(members[0], tokens(members[0].text))
    for shape in members[1:]:
        group.add(shape, tokens(shape.text))
    columns = _columns(group.loose, members)
    if columns is None:
        return
    literals, columns = trimmed(group.literals, columns)
    versions = [key for column in columns for key in _versions(column)]
    if versions:
        by_version: defaultdict[tuple[str, ...], list[SeenShape]] = defaultdict(list)
        for place, shape in enumerate(members):
            by_version[tuple(key[place] for key in versions)].append(shape)
        for _, part in sorted(by_version.items()):
            yield from _templates(part)
    elif columns and _varies(members, literals, columns):
        longest = [max(map(len, c)) for c in columns]
        # a little longer than the values so far: the next name may be longer
        holes = [n + max(4, n // 4) for n in longest]
        yield _template(members[0].rest, literals, holes)


def _columns(template: PromptTemplate, group: list[SeenShape]) -> list[list[str]] | None:
    """For each hole, the value of each prompt."""
    rows = [values(template, shape.text) for shape in group]
    if any(row is None for row in rows):
        return None  # a border between two prompts lies where they differ
    return [list(column) for column in zip(*(row for row in rows if row), strict=True)]


def _versions(column: list[str]) -> list[list[str]]:
    """The keys that split the prompts into versions, where a hole is not only input.

    The values themselves where there are few, or one most of the time: they were written by hand.
    Else the words that they begin or end with, if these are few: 'Hello Ann' and 'Hi Bob' are in
    one hole when the prompt was edited beside it.
    """
    counts = Counter(column)
    if all(map(is_clock, counts)):
        return []
    if len(counts) < MIN_DISTINCT or max(counts.values()) > MAX_OF_ONE * len(column):
        return [column]
    words = [tokens(value) or [""] for value in column]
    edges = [[one[0] for one in words], [one[-1] for one in words]]
    return [edge for edge in edges if 1 < len(set(edge)) < MIN_DISTINCT]


def _varies(group: list[SeenShape], literals: list[str], columns: list[list[str]]) -> bool:
    requests = sum(s.requests for s in group)
    if max(s.requests for s in group) > MAX_OF_ONE * requests:
        return False
    if len(columns) > MAX_HOLES:
        return False
    literal = sum(map(len, literals))
    if literal < max(LITERAL_CHARS, LITERAL_SHARE * max(len(s.text) for s in group)):
        return False
    each_another = 2 * len(group) >= requests
    longest = max(len(value) for column in columns for value in column)
    if longest > (MAX_PROFILE_CHARS if each_another else MAX_VALUE_CHARS):
        return False
    clocks = all(is_clock(value) for column in columns for value in column)
    return each_another or clocks or _come_and_go(group)


def _come_and_go(group: list[SeenShape]) -> bool:
    """Whether prompts come back after others came, as those of users do and versions do not.

    Of the prompts that were used more than once, at least half must overlap with the beginnings of
    three others. An overlap with one looks like the change to the next version.
    """
    begins = sorted(s.first_at for s in group)
    again = [s for s in group if s.requests > 1]
    overlapping = sum(
        bisect_left(begins, s.last_at) - bisect_right(begins, s.first_at) >= 3 for s in again
    )
    return 2 * overlapping >= len(again)


def _template(rest: str, literals: list[str], holes: list[int]) -> PromptTemplate:
    """The id is a hash of the constant parts alone: the holes' lengths grow with the traffic."""
    content = orjson.dumps([rest, literals])
    return PromptTemplate(
        template_id=blake2b(content, digest_size=8, person=b"template").hexdigest(),
        shape=rest,
        literals=literals,
        holes=holes,
        distinct=0,  # counted at the end, over all prompts
    )
