"""Groups of live requests: each gets its group when it comes, and keeps it for good.

The same rules as in distill.dataset.groups, asked of one input at a time. It joins the oldest group
with an input that

- has the same text, but for case, punctuation and white space; or
- belongs to the same conversation, that is begins with the same turns of the user; or
- shares 70 % of its informative text, or half of the shorter one's and much of it: another date, id
  or status makes no other ticket.

What is informative, and which beginnings are those of many conversations, is known from what
the teacher had answered before, and from the live inputs so far. Where neither knows a
form, its first inputs are one group; from LIVE_ROWS of them on, or an eighth of all, the form
weighs nothing.

What it misses, since a group that is once given never changes (distill.gate.tally needs that):
- Groups that turn out to be linked later stay two.
- An input is compared with the newest KEPT. One that belongs to an older one is a new group.
- Long inputs are compared by a sample of their terms.
- Live inputs that belong to a group of held-out rows are one more group in the bound over both.

It is otherwise never less careful than the rules for rows, which link no more than these in a group
of up to LIVE_ROWS.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np

from distill.dataset.groups import (
    CONTAINED,
    CONTAINED_TERMS,
    MAX_BRANCHES,
    MAX_SHARE,
    SIMILAR,
    STRICTER,
    Codes,
    Floats,
    Member,
    coded_terms,
    decisive_terms,
    folded,
    words_of,
)
from store.chat.shape import MARK

KEPT = 1_000  # newest live inputs that an input is compared with
REFERENCE = 2_000  # earlier inputs that say what is informative
REFERENCE_WORDS = 300_000  # of them together
LIVE_ROWS = 50  # inputs that one entity's text is in; a form's is in more
MAX_TERMS = 500  # of one input: of a longer one a sample, the same of all that are as long
MAX_TURNS = 64  # of the user, by which conversations are told apart

Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class _Terms:
    """The terms of one input, or a sample of them. Kept in place of its text."""

    codes: Codes  # each once, ascending
    factors: Floats  # of their weights, without `every`
    every: int  # of so many terms one was taken: a power of 2


@dataclass(frozen=True, slots=True, eq=False)
class _Input:
    """A live input that later ones are compared with. It holds no text."""

    group: str
    turns: tuple[str, ...]  # hashes of the conversation's first turn, of its first two, …
    text: str  # hash
    terms: _Terms


class LiveGroups:
    """The groups of one student's live inputs. Not for use by several threads at once."""

    def __init__(self, reference: Sequence[Member] = ()) -> None:
        """`reference`: earlier inputs with the teacher's answers; the newest are looked at."""
        sample = _newest(reference)
        self._known = len(sample)
        self._codes, self._counts, self._decisive = _reference(sample)
        self._nexts: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by hash of turns
        for member in sample:
            self._learn_turns(_turns(member))
        self._inputs: deque[_Input] = deque()  # oldest first
        self._sizes: Counter[str] = Counter()  # of the groups, by inputs
        self._live: Counter[int] = Counter()  # of how many inputs each term is
        self._with: defaultdict[int, deque[_Input]] = defaultdict(deque)  # by term, oldest first
        self._by_text: dict[str, _Input] = {}  # the oldest input with it
        self._by_beginning: dict[str, _Input] = {}  # the same

    def group_of(self, name: str, member: Member) -> str:
        """The group of a new input: that of an earlier one, or a new one with this name."""
        turns, text, terms = _turns(member), _text(member), _terms(member)
        found = self._find(turns, text, terms)
        group = name if found is None else found.group
        self._add(_Input(group, turns, text, terms))
        return group

    def remember(self, group: str, member: Member) -> None:
        """Takes over an input whose group is known, newer than all before."""
        self._add(_Input(group, _turns(member), _text(member), _terms(member)))

    def _add(self, one: _Input) -> None:
        self._learn_turns(one.turns)
        self._inputs.append(one)
        self._sizes[one.group] += 1
        self._by_text.setdefault(one.text, one)
        self._by_beginning.setdefault(self._beginning(one.turns), one)
        for code in one.terms.codes.tolist():
            self._live[code] += 1
            self._with[code].append(one)
        if len(self._inputs) > KEPT:
            self._forget(self._inputs.popleft())

    def _forget(self, one: _Input) -> None:
        """Leaves out the oldest input."""
        for beginning, after in pairwise(one.turns):
            nexts = self._nexts[beginning]
            nexts[after] -= 1
            if nexts[after] <= 0:
                del nexts[after]
            if not nexts:
                del self._nexts[beginning]
        self._sizes[one.group] -= 1
        if not self._sizes[one.group]:
            del self._sizes[one.group]
        for code in one.terms.codes.tolist():
            self._live[code] -= 1
            self._with[code].popleft()
            if not self._live[code]:
                del self._live[code], self._with[code]
        if self._by_text.get(one.text) is one:
            del self._by_text[one.text]
        for beginning in one.turns:
            if self._by_beginning.get(beginning) is one:
                del self._by_beginning[beginning]

    # ---- which input it belongs to ---------------------------------------------------------------

    def _find(self, turns: tuple[str, ...], text: str, terms: _Terms) -> _Input | None:
        for same in (self._by_text.get(text), self._by_beginning.get(self._beginning(turns))):
            if same is not None:
                return same
        return self._similar(terms)

    def _learn_turns(self, turns: tuple[str, ...]) -> None:
        for beginning, after in pairwise(turns):
            self._nexts[beginning][after] += 1

    def _beginning(self, turns: tuple[str, ...]) -> str:
        """The shortest beginning that is this conversation's own, not that of many."""
        for place in range(len(turns) - 2, -1, -1):
            if len(self._nexts.get(turns[place], ())) > MAX_BRANCHES:
                return turns[place + 1]
        return turns[0]

    def _similar(self, terms: _Terms) -> _Input | None:
        """The oldest input that is similar; of large groups only a near-duplicate."""
        weights = self._weights(terms, terms.codes)
        total = float(weights.sum()) * terms.every
        much = CONTAINED_TERMS * math.sqrt(math.log(max(self._number, 2)))
        shared: defaultdict[_Input, float] = defaultdict(float)
        for code, weight in zip(terms.codes.tolist(), weights.tolist(), strict=True):
            if weight > 0:
                for one in self._with.get(code, ()):
                    shared[one] += weight * max(terms.every, one.terms.every)
        likely = {one for one, weight in shared.items() if weight >= min(SIMILAR * total, much)}
        for one in self._inputs if likely else ():
            if one in likely:
                other = float(self._weights(one.terms, terms.codes).sum()) * one.terms.every
                common = min(shared[one], total, other)  # of samples, it is an estimate
                jaccard = common / (total + other - common)
                contained = common >= CONTAINED * min(total, other) and common >= much
                if self._sizes[one.group] > LIVE_ROWS:
                    if jaccard >= STRICTER[-1]:
                        return one
                elif jaccard >= SIMILAR or contained:
                    return one
        return None

    @property
    def _number(self) -> int:
        """How many inputs the weights are of, with the one in question."""
        return self._known + len(self._inputs) + 1

    def _weights(self, terms: _Terms, own: Codes) -> Floats:
        """The weight of each of these terms, all of one input; see distill.dataset.groups.

        `own`: the terms of the input in question, which is not among the live ones yet.
        """
        codes = terms.codes
        counts = np.array([self._live.get(code, 0) for code in codes.tolist()], dtype=np.float64)
        counts += np.isin(codes, own, assume_unique=True)
        decisive = np.zeros(len(codes), dtype=bool)
        if len(self._codes):
            places = np.searchsorted(self._codes, codes)
            places[places == len(self._codes)] = 0
            known = self._codes[places] == codes
            counts += np.where(known, self._counts[places], 0)
            decisive = known & self._decisive[places]
        weights = np.sqrt(np.log(self._number / np.maximum(counts, 1)))
        of_form = counts > min(LIVE_ROWS, MAX_SHARE * self._number)
        return np.where(of_form & ~decisive, 0.0, weights * terms.factors)


def _newest(members: Sequence[Member]) -> list[Member]:
    """The newest of these inputs, oldest first: REFERENCE of them, with REFERENCE_WORDS."""
    ordered = sorted(members, key=lambda m: (m.at, m.name), reverse=True)[:REFERENCE]
    words = np.cumsum([len(member.text) // 6 for member in ordered])  # about so many
    return ordered[: int(np.searchsorted(words, REFERENCE_WORDS)) + 1][::-1]


def _turns(member: Member) -> tuple[str, ...]:
    digest = blake2b(digest_size=8)
    hashes = []
    for turn in member.users[:MAX_TURNS]:
        digest.update(f"{MARK}{folded(turn)}".encode("utf-8", "replace"))
        hashes.append(digest.hexdigest())
    return tuple(hashes)


def _text(member: Member) -> str:
    return blake2b(folded(member.text).encode("utf-8", "replace"), digest_size=16).hexdigest()


def _terms(member: Member) -> _Terms:
    codes, factors = _all_terms(member)
    every = 1
    while len(codes) > MAX_TERMS:
        every *= 2
        # by the middle bits: the first one marks runs of words
        taken = (codes >> np.uint64(16)) % np.uint64(every) == 0
        codes, factors = codes[taken], factors[taken]
    return _Terms(codes, factors, every)


def _all_terms(member: Member) -> tuple[Codes, Floats]:
    """The codes of an input's terms, each once and ascending, and the factors of their weights."""
    _, codes, factors = coded_terms([words_of(member.text)])
    codes, firsts = np.unique(codes, return_index=True)
    return codes, factors[firsts]


def _reference(members: Sequence[Member]) -> tuple[Codes, Floats, Bools]:
    """The terms that several of these inputs have: code, number of inputs, whether it is decisive.

    Ascending by code. Terms of one input alone are like unknown ones.
    """
    each = [_all_terms(member)[0] for member in members]
    if not each:
        return np.zeros(0, np.uint64), np.zeros(0), np.zeros(0, bool)
    codes, terms, counts = np.unique(np.concatenate(each), return_inverse=True, return_counts=True)
    places = np.repeat(np.arange(len(each)), [len(one) for one in each])
    answers = np.unique([m.answer for m in members], return_inverse=True)[1]
    decisive = decisive_terms(places, terms, answers, most=LIVE_ROWS)
    several = counts > 1
    return codes[several], counts[several].astype(np.float64), decisive[several]
