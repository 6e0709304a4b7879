"""Groups: inputs that belong together, so that they are in one split and count as one.

Turns of one conversation, updates of one ticket and near-duplicates say little more together than
one of them does. Two inputs are linked when any of these rules holds, and a group is all that is
linked, directly or through others:

same text      They differ in case, punctuation and white space at most.
conversation   They begin with the same turns of the user. Turns that go on in more than
               MAX_BRANCHES ways ("hi", or examples that stand before each input) begin many
               conversations and link nothing; the next turn that is their own does.
similar        What they share of the text that is *informative* is at least SIMILAR of what both
               have together; or it is half of what the shorter one has (CONTAINED), and much.

Informative text. A text is the set of its words and of its runs of two and three words, without
the system prompt. What few inputs have weighs more, sqrt(log(inputs / those that have it)), and
numbers weigh little: an id, a date or an amount makes no other ticket. What very many inputs have
(MAX_ROWS of them, or MAX_SHARE) is the text of a form and weighs nothing, so that a long form does
not make all of its inputs alike. It keeps its weight where it decides the answer: then those inputs
are one case, however many they are.

A group that resemblance makes larger than MAX_ROWS, of inputs with different answers, is a chain
rather than an entity: its similar pairs are linked again by stricter limits, until it falls apart
or its pairs are near-duplicates indeed. Pairs that this leaves in two groups are returned as
`close`: the caller must not have one learned and the other one judged.

The oldest member names a group, so that it keeps its name when later ones join. When a new member
links two groups, they are one from then on, under the older name. A run chooses its groups once,
before its splits: within a run nothing that is linked is ever on two sides.

Broder, "On the resemblance and containment of documents", Compression and Complexity of Sequences
(1997), https://doi.org/10.1109/SEQUEN.1997.666900; Spärck Jones, "A statistical interpretation of
term specificity and its application in retrieval", Journal of Documentation 28 (1972),
https://doi.org/10.1108/eb026526
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from store.chat.shape import SYSTEM_ROLES, Messages, text_of

SIMILAR = 0.7  # of the informative text of both, that they share
CONTAINED = 0.5  # of the informative text of the shorter one
CONTAINED_TERMS = 14  # how many terms that no other input has weigh as much as must be contained
STRICTER = (0.8, 0.9)  # limits for groups that are too large
MAX_ROWS = 100  # inputs that one entity's text is in; a form's is in more
MAX_SHARE = 1 / 8  # the same, as a share of all inputs
DECISIVE = 0.1  # share of the expected other answers up to which a text decides the answer
MAX_BRANCHES = 8  # ways in which one conversation goes on: retries and edits
NUMBER_WEIGHT = 0.25  # of that of another word
MAX_WORDS = 4_000  # of one input that are looked at
MAX_TERMS = 8_000_000  # of all inputs: beyond, a sample of the runs of words stands for all
BLOCK = 1_000  # inputs that are compared with all others at a time

_WORD = re.compile(r"[^\W_]+")
_IDEOGRAMS = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")
_SWITCHES = re.compile(r"(?<=\d)(?=\D)|(?<=\D)(?=\d)")  # between letters and digits
_NUMBER = 0  # the word that stands for every number in a run of words
_RUN = np.uint64(1 << 63)  # marks the code of a run of words

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Codes = np.ndarray[Any, np.dtype[np.uint64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What grouping looks at of one input."""

    name: str  # of the input: equal names are one input
    at: float  # when it was asked, in seconds since the epoch
    users: tuple[str, ...]  # what the user said, oldest first
    text: str  # all of the input but the system prompts' constant part
    answer: str  # its normal form


@dataclass(frozen=True, slots=True)
class Groups:
    """The group of each input."""

    names: list[str]  # in the order of the inputs: the name of the group's oldest member
    openings: frozenset[int]  # places of inputs with which many conversations begin
    close: list[tuple[int, int]]  # similar inputs in two groups: one must not be learned


def said(messages: Messages, values: Sequence[str] = ()) -> tuple[tuple[str, ...], str]:
    """What grouping looks at of a conversation: the user's turns, and all of its text.

    `values`: those in the holes of the system prompt's template, if it has one. The rest of the
    system prompt is left out.
    """
    turns = [(m.get("role"), text_of(m.get("content"))) for m in messages]
    filled = " ".join(values)
    users = [text for role, text in turns if role == "user"] or [""]
    text = "\n".join([filled, *(text for role, text in turns if role not in SYSTEM_ROLES)])
    return (f"{filled} {users[0]}", *users[1:]), text


def group(members: Sequence[Member]) -> Groups:
    """The groups of these inputs. The order of the inputs does not matter."""
    links = _Links(len(members))
    for places in _by_key([m.name for m in members]):
        links.join(places)
    words = [words_of(m.text) for m in members]
    for places in _by_key([folded(m.text, w) for w, m in zip(words, members, strict=True)]):
        links.join(places)
    openings = _link_conversations(members, links)
    if not members:
        return Groups([], frozenset(), [])
    answers = np.unique([m.answer for m in members], return_inverse=True)[1].astype(np.int64)
    first, second, share = _similar_pairs(words, answers)
    _link_similar(links, first, second, share, answers)
    roots = links.roots()
    apart = roots[first] != roots[second]
    close = list(zip(first[apart].tolist(), second[apart].tolist(), strict=True))
    oldest: dict[int, Member] = {}
    for member, root in zip(members, roots.tolist(), strict=True):
        known = oldest.setdefault(root, member)
        if (member.at, member.name) < (known.at, known.name):
            oldest[root] = member
    return Groups([oldest[root].name for root in roots.tolist()], frozenset(openings), close)


class _Links:
    """Which places are linked, directly or through others (union-find)."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def root(self, place: int) -> int:
        parents = self._parents
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    def join(self, places: Iterable[int]) -> None:
        """Links all of these places."""
        first = -1
        for place in places:
            root = self.root(place)
            if first >= 0 and root != first:
                self._parents[max(root, first)] = min(root, first)
                root = min(root, first)
            first = root

    def roots(self) -> Ints:
        return np.array([self.root(p) for p in range(len(self._parents))], dtype=np.int64)

    def join_pairs(self, first: Ints, second: Ints) -> None:
        """Links the places of each pair."""
        for pair in zip(first.tolist(), second.tolist(), strict=True):
            self.join(pair)

    def copy(self) -> _Links:
        twin = _Links(0)
        twin.reset(self)
        return twin

    def reset(self, other: _Links) -> None:
        """Takes over the links of another."""
        self._parents = list(other._parents)


def _by_key(keys: Sequence[str]) -> Iterator[list[int]]:
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        places[key].append(place)
    return (same for same in places.values() if len(same) > 1)


# ---- conversations -----------------------------------------------------------------------------


def _link_conversations(members: Sequence[Member], links: _Links) -> set[int]:
    """Links the turns of one conversation. Returns the places of generic openings."""
    at: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)  # places by all user turns
    branches: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)  # what was said next
    for place, member in enumerate(members):
        turns = tuple(folded(t) for t in member.users)
        at[turns].append(place)
        for length in range(1, len(turns)):
            branches[turns[:length]].add(turns[length])
    generic = {
        opening[:length]
        for opening, nexts in branches.items()
        if len(nexts) > MAX_BRANCHES
        for length in range(1, len(opening) + 1)
    }
    trees: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for turns, places in at.items():
        # the shortest beginning that is this conversation's own names it
        own = next((n for n in range(1, len(turns) + 1) if turns[:n] not in generic), len(turns))
        trees[turns[:own]].extend(places)
    for places in trees.values():
        links.join(places)
    return {place for turns in generic for place in at.get(turns, ())}


# ---- similar texts -----------------------------------------------------------------------------


def folded(text: str, words: Sequence[str] | None = None) -> str:
    """The same for texts that differ in case, punctuation and white space. `words`: of the text."""
    return " ".join(words_of(text) if words is None else words) or text


def words_of(text: str) -> list[str]:
    """The words in lower case; scripts without spaces by character."""
    found = _WORD.findall(text.casefold())
    if text.isascii():
        return found
    return [part for word in found for part in _IDEOGRAMS.split(word) if part]


def _link_similar(links: _Links, first: Ints, second: Ints, share: Floats, answers: Ints) -> None:
    """Links similar pairs, those of a chain by stricter limits."""
    before = links.copy()
    links.join_pairs(first, second)
    for limit in STRICTER:
        roots = links.roots()
        chains = np.flatnonzero(np.bincount(roots) > MAX_ROWS)
        chains = chains[~_decided(roots, answers, answers)[chains]]
        kept = ~np.isin(roots[first], chains) | (share >= limit)
        if kept.all():
            return
        first, second, share = first[kept], second[kept], share[kept]
        links.reset(before)
        links.join_pairs(first, second)


def _decided(of: Ints, answers: Ints, all_answers: Ints) -> Bools:
    """For each value of `of`, whether it decides the answer: hardly any has another one.

    That is, others than its commonest answer come at most DECISIVE times as often as among all.
    `answers`: to each place of `of`.
    """
    kinds = int(all_answers.max(initial=0)) + 1
    distinct, times = np.unique(of * kinds + answers, return_counts=True)
    value, answer = distinct // kinds, distinct % kinds
    sizes = np.bincount(of)
    expected = 1 - np.bincount(all_answers, minlength=kinds) / len(all_answers)
    decided = np.zeros(len(sizes), dtype=bool)
    enough = sizes[value] - times <= DECISIVE * expected[answer] * sizes[value]
    decided[value[enough & (expected[answer] > 0)]] = True
    return decided


def _similar_pairs(words: Sequence[Sequence[str]], answers: Ints) -> tuple[Ints, Ints, Floats]:
    """The similar pairs, the earlier place first, and how much of their text they share."""
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - slow to import

    places, terms, factors = _terms(words)
    weights = factors * _informative(places, terms, answers)
    totals = np.bincount(places, weights, minlength=len(words))
    counts = np.bincount(terms, minlength=1)
    useful = (weights > 0) & (counts[terms] > 1)  # what one input alone has matches nothing
    shape = (len(words), int(terms.max(initial=-1)) + 1)
    roots = np.sqrt(weights[useful])
    matrix = csr_matrix((roots, (places[useful], terms[useful])), shape=shape)
    columns = matrix.T.tocsr()
    much = CONTAINED_TERMS * np.sqrt(np.log(max(len(words), 2)))
    results: list[tuple[Ints, Ints, Floats]] = []
    for start in range(0, len(words), BLOCK):
        product = (matrix[start : start + BLOCK] @ columns).tocoo()
        one, other, shared = product.row + start, product.col, product.data
        later = one < other
        one, other, shared = one[later], other[later], shared[later]
        union = totals[one] + totals[other] - shared
        smaller = np.minimum(totals[one], totals[other])
        jaccard = shared / union
        contained = (shared >= CONTAINED * smaller) & (shared >= much)
        close = (jaccard >= SIMILAR) | contained
        share = np.where(contained[close], np.maximum(jaccard[close], CONTAINED), jaccard[close])
        results.append((one[close].astype(np.int64), other[close].astype(np.int64), share))
    if not results:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    firsts, seconds, shares = zip(*results, strict=True)
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(shares)


def _terms(words: Sequence[Sequence[str]]) -> tuple[Ints, Ints, Floats]:
    """(input, term, factor of its weight), each pair of input and term once."""
    places, codes, factors = coded_terms(words)
    _, terms = np.unique(codes, return_inverse=True)
    pair = places * (int(terms.max(initial=0)) + 1) + terms
    _, firsts = np.unique(pair, return_index=True)
    return places[firsts], terms[firsts].astype(np.int64), factors[firsts]


def coded_terms(words: Sequence[Sequence[str]]) -> tuple[Ints, Codes, Floats]:
    """(input, code of a term, factor of its weight) of every word and every run of words.

    A term has the same code in all inputs, and in every call.
    """
    known: dict[str, int] = {}
    numbers: set[int] = set()
    ids: list[int] = []
    sizes = []
    for text in words:
        whole = len(text) <= MAX_WORDS
        each = text if whole else [*text[: MAX_WORDS // 2], *text[-MAX_WORDS // 2 :]]
        sizes.append(len(each))
        for word in each:
            code = known.get(word)
            if code is None:
                digest = blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
                code = known[word] = (int.from_bytes(digest, "big") >> 1) | 1  # never _NUMBER
                if _is_number(word):
                    numbers.add(code)
            ids.append(code)
    tokens = np.array(ids, dtype=np.int64)
    places = np.repeat(np.arange(len(words)), sizes)
    is_number = np.isin(tokens, np.fromiter(numbers, dtype=np.int64, count=len(numbers)))
    masked = np.where(is_number, _NUMBER, tokens).astype(np.uint64)
    every = max(1, -(-3 * len(tokens) // MAX_TERMS))
    codes = [tokens.astype(np.uint64)]
    of = [places]
    factors = [np.where(is_number, NUMBER_WEIGHT, 1.0)]
    for length in (2, 3):
        run = np.full(max(0, len(tokens) - length + 1), length, dtype=np.uint64)
        for shift in range(length):
            run = _mixed(run, masked[shift : shift + len(run)])
        within = places[: len(run)] == places[length - 1 :] if len(run) else places[:0] == 0
        within &= run % np.uint64(every) == 0
        # a run of numbers alone says nothing
        plain = np.zeros(len(run), dtype=bool)
        for shift in range(length):
            plain |= masked[shift : shift + len(run)] != _NUMBER
        within &= plain
        codes.append(run[within] | _RUN)
        of.append(places[: len(run)][within])
        factors.append(np.full(int(within.sum()), float(every)))
    return np.concatenate(of), np.concatenate(codes), np.concatenate(factors)


def _is_number(word: str) -> bool:
    """Whether a word is a number, a part of a date or an id: half digits, or digits in between."""
    digits = sum(map(str.isdigit, word))
    return bool(digits) and (2 * digits >= len(word) or len(_SWITCHES.findall(word)) > 1)


def _mixed(code: Any, word: Any) -> Any:
    """A hash of both (the finaliser of splitmix64)."""
    z = (code ^ word) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _informative(places: Ints, terms: Ints, answers: Ints) -> Floats:
    """The weight of each of these terms, before its factor."""
    inputs = len(answers)
    counts = np.bincount(terms)
    weight = np.sqrt(np.log(inputs / np.maximum(counts, 1)))
    of_form = counts > min(MAX_ROWS, MAX_SHARE * inputs)
    weight[of_form & ~decisive_terms(places, terms, answers, most=MAX_ROWS)] = 0.0
    return weight[terms]


def decisive_terms(places: Ints, terms: Ints, answers: Ints, *, most: int) -> Bools:
    """Of each term, whether more than `most` inputs (or MAX_SHARE) have it and it decides the
    answer. `places`: of the inputs with each of `terms`. `answers`: of each input.
    """
    counts = np.bincount(terms)
    decisive = np.zeros(len(counts), dtype=bool)
    of_form = (counts > min(most, MAX_SHARE * len(answers)))[terms]
    if of_form.any():
        common, number = np.unique(terms[of_form], return_inverse=True)
        decisive[common[_decided(number, answers[places[of_form]], answers)]] = True
    return decisive
