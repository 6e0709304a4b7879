"""The kind of a task's answers: decided once a run, from rows that nothing is certified on.

The scorer, the checks of synthetic answers, the slices of the gate and the forms that the proxy
enforces all use this one decision. The rules, in order (`describe`):

tools   a request had tools.
json    95 % of the answers are JSON objects or lists. A number or a string alone is no JSON here.
label   95 % of the answers are one short line, and over two thirds of them are given more than
        once. The few that are long (an apology, a refusal) are answers but no labels.
text    anything else. `short` says whether 95 % of the answers are one short line.

Two thirds is the border because of the estimate of Good and Turing: the share of answers that were
seen once is about the probability that the next answer is a new one (Good 1953, "The population
frequencies of species"). A doubtful task counts as one of labels, since that is the stricter kind:
a student may give known labels alone, and the gate tests each label by itself. 272 answers with
four labels among 400, the others all different, are therefore labels (of 68 %), but `closed` is
False: with that many new answers to be expected, a synthetic one is no mistake for being new.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from distill.dataset.rows import Row
from distill.dataset.texts import MAX_LABEL_CHARS, is_short, parsed
from store.chat.labels import json_fields
from store.chat.normal_form import normal_answer, normal_text, object_keys
from store.chat.tools import read_tool_answer
from store.records import Forms, OutputKind

T = TypeVar("T")

MIN_SHARE_OF_KIND = 0.95  # of the answers that have to be JSON, or short
REPEATED_BELOW = 1 / 3  # share of answers seen once below which answers repeat, as labels do
CLOSED_BELOW = 0.05  # the same share, below which a new label is a mistake
MAX_FORMS = 1000  # labels, or sets of keys: more are not listed, and reject nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the answers of a task look like, and why that is so."""

    kind: OutputKind
    reason: str
    short: bool = False  # hardly an answer is longer than one short line
    repeated: bool = False  # answers repeat so much that one can ask for each of them
    labels: frozenset[str] = frozenset()  # normal texts; none when there are over MAX_FORMS
    closed: bool = False  # the labels are all that there are: another one is a mistake
    key_sets: frozenset[tuple[str, ...]] = frozenset()  # the sorted keys of every kind of object
    lists: bool = True  # whether a JSON answer may be a list
    fields: frozenset[str] = frozenset()  # of JSON answers, whose values are a closed set
    open_fields: frozenset[str] = frozenset()  # the other fields of JSON answers
    calls: frozenset[str] = frozenset()  # functions called; an empty name for answers in words

    def forms(self, placeholders: Sequence[str] = ()) -> Forms:
        """What a route enforces on the student's answers.

        `placeholders`: what stands for redacted text; no answer that is served may hold one.
        """
        return Forms(
            labels=sorted(self.labels),
            keys=[list(keys) for keys in sorted(self.key_sets)],
            lists=self.lists,
            calls=sorted(self.calls),
            placeholders=list(placeholders),
        )


def answers_of(rows: Sequence[Row]) -> Answers:
    """The kind of these rows' answers. Give it rows that nothing is certified on."""
    return describe(
        [row.target for row in rows], tools=[row.target for row in rows if "tools" in row.params]
    )


def describe(targets: Sequence[str], *, tools: Sequence[str] = ()) -> Answers:
    """The kind of these answers; see the rules above.

    `tools`: those of the answers whose requests had tools. Raises ValueError without answers.
    """
    if not targets:
        raise ValueError("no answers to derive a kind from")
    count = len(targets)
    repeated = share_seen_once([normal_answer(t) for t in targets]) < REPEATED_BELOW
    if tools:
        return _tool_answers(tools, count, repeated)
    containers = [value for value in map(parsed, targets) if isinstance(value, dict | list)]
    if len(containers) >= MIN_SHARE_OF_KIND * count:
        key_sets = {keys for keys in map(object_keys, targets) if keys is not None}
        all_fields, closed = _fields(targets)
        return Answers(
            kind="json",
            reason=f"{len(containers)} of {count} answers are JSON objects or lists",
            repeated=repeated,
            key_sets=_listed(key_sets),
            lists=any(isinstance(value, list) for value in containers),
            fields=closed,
            open_fields=all_fields - closed,
        )
    normal = [normal_text(t) for t in targets]
    short = [t for t in normal if is_short(t)]
    if len(short) < MIN_SHARE_OF_KIND * count:
        long = count - len(short)
        reason = f"{long} of {count} answers have over {MAX_LABEL_CHARS} characters or lines"
        return Answers(kind="text", reason=reason, repeated=repeated)
    new = share_seen_once(short)
    if new < REPEATED_BELOW:
        return Answers(
            kind="label",
            reason=f"{len(set(short))} different short answers in {count}",
            short=True,
            repeated=True,
            labels=_listed(set(short)),
            closed=new < CLOSED_BELOW,
        )
    reason = f"{len(short)} of {count} answers are one short line, and {new:.0%} are given once"
    return Answers(kind="text", reason=reason, short=True, repeated=repeated)


def share_seen_once(values: Sequence[str]) -> float:
    """The share of values that no other one is equal to; 1 when there are none."""
    counts = Counter(values)
    return sum(n == 1 for n in counts.values()) / len(values) if values else 1.0


def _fields(targets: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The fields of JSON answers (store.chat.labels), and those in which no new value is likely."""
    values: dict[str, list[str]] = defaultdict(list)
    for field, value in chain.from_iterable(map(json_fields, targets)):
        values[field].append(value)
    closed = frozenset(
        field
        for field, given in values.items()
        if share_seen_once(given) < CLOSED_BELOW and len(set(given)) <= MAX_FORMS
    )
    return frozenset(values), closed


def _tool_answers(tools: Sequence[str], count: int, repeated: bool) -> Answers:
    read = [answer for answer in map(read_tool_answer, tools) if answer is not None]
    calling = sum(bool(answer.calls) for answer in read)
    return Answers(
        kind="tools",
        reason=f"{calling} of {count} answers call tools",
        repeated=repeated,
        calls=_listed({name for answer in read for name in answer.names}),
    )


def _listed(values: set[T]) -> frozenset[T]:
    return frozenset(values) if len(values) <= MAX_FORMS else frozenset()
