"""Groups of live requests: given once, one at a time, by the same rules as those of rows."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from distill.dataset.groups import Member, group, said
from distill.dataset.live_groups import KEPT, MAX_TERMS, LiveGroups

WORDS = [
    "".join(parts)
    for parts in zip(
        *(random.Random(seed).choices("abcdefghiklmnoprstuvw", k=600) for seed in range(6)),
        strict=True,
    )
]


def member(*turns: str, name: str = "n", at: float = 0.0, answer: str = "") -> Member:
    """A conversation in which the user said these turns."""
    messages = [{"role": "user", "content": turn} for turn in turns]
    users, text = said(messages)
    return Member(name=name, at=at, users=users, text=text, answer=answer)


def sentence(draw: random.Random, words: int = 12) -> str:
    return " ".join(draw.choices(WORDS, k=words))


def some_reference(count: int = 300) -> list[Member]:
    draw = random.Random(1)
    return [member(sentence(draw), name=f"r{n}", at=n, answer=str(n % 3)) for n in range(count)]


def groups_of(groups: LiveGroups, members: Sequence[Member]) -> list[str]:
    return [groups.group_of(str(place), one) for place, one in enumerate(members)]


TICKET = "the blue parcel for Jones that was sent from Leeds never arrived at his door"


@pytest.mark.parametrize(
    "same",
    [
        member(f"{TICKET.upper()}!!"),
        member(TICKET, "is there any news?"),
        member(f"2024-11-30 {TICKET} #4711"),
        member(f"{TICKET} yet"),
    ],
    ids=["other spelling", "another turn", "another date and id", "one more word"],
)
def test_what_belongs_to_an_earlier_input_gets_its_group(same: Member) -> None:
    groups = LiveGroups(some_reference())
    draw = random.Random(2)
    others = [member(sentence(draw)) for _ in range(20)]
    assert groups_of(groups, [*others, member(TICKET), same])[-2:] == ["20", "20"]


def test_a_conversation_of_fifty_turns_is_one_group_in_whatever_order_its_turns_come() -> None:
    draw = random.Random(3)
    turns = [sentence(draw, 5) for _ in range(50)]
    requests = [member(*turns[: n + 1]) for n in range(50)]
    draw.shuffle(requests)
    assert set(groups_of(LiveGroups(some_reference()), requests)) == {"0"}


@pytest.mark.parametrize("known", [True, False])
def test_a_greeting_or_an_example_before_each_input_makes_no_group_of_all(known: bool) -> None:
    draw = random.Random(4)
    requests = [member("hello there", sentence(draw)) for _ in range(100)]
    groups = LiveGroups([*some_reference(), *requests] if known else some_reference())
    found = groups_of(groups, [member("hello there", sentence(draw)) for _ in range(100)])
    assert len(set(found)) == 100 if known else 90 <= len(set(found)) < 100


def form(draw: random.Random) -> str:
    """A long form of which two fields vary."""
    fields = draw.choices(WORDS, k=3)
    return (
        "please classify the following request of a customer of our shop by its topic "
        f"customer {' '.join(fields)} subject {sentence(draw, 4)} end of the request"
    )


def test_a_known_form_makes_no_group_of_all_its_inputs() -> None:
    draw = random.Random(5)
    known = [member(form(draw), name=f"f{n}", at=n, answer=str(n % 5)) for n in range(200)]
    found = groups_of(
        LiveGroups([*some_reference(), *known]), [member(form(draw)) for _ in range(99)]
    )
    assert len(set(found)) == 99


def test_a_form_that_is_new_is_found_to_be_one() -> None:
    """Its first inputs are one group; then it weighs nothing any more."""
    draw = random.Random(6)
    found = groups_of(LiveGroups(some_reference()), [member(form(draw)) for _ in range(150)])
    assert len(set(found)) > 95
    assert len(set(found[60:])) == 90


@pytest.mark.slow
def test_groups_are_never_less_careful_than_those_of_rows() -> None:
    """Tickets with updates, in any order: no pair that the rules for rows link is apart."""
    draw = random.Random(7)
    tickets = []
    for _ in range(40):
        text = sentence(draw, 14)
        tickets += [member(f"{text} update {n} {draw.choice(WORDS)}") for n in range(5)]
    tickets = [
        Member(name=str(n), at=n, users=t.users, text=t.text, answer="")
        for n, t in enumerate(draw.sample(tickets, len(tickets)))
    ]
    reference = some_reference()
    live = groups_of(LiveGroups(reference), tickets)
    rows = group([*reference, *tickets]).names[len(reference) :]
    linked = {(a, b) for a in range(200) for b in range(a) if rows[a] == rows[b]}
    assert len(set(live)) == 40
    assert {(a, b) for a, b in linked if live[a] != live[b]} == set()


@pytest.mark.slow
def test_an_input_keeps_its_group_after_a_restart() -> None:
    draw = random.Random(8)
    texts = [sentence(draw) for _ in range(30)]
    members = [member(f"{draw.choice(texts)} {n}") for n in range(200)]
    whole = LiveGroups(some_reference())
    expected = groups_of(whole, members)
    first = LiveGroups(some_reference())
    found = groups_of(first, members[:100])
    again = LiveGroups(some_reference())
    for name, one in zip(found, members[:100], strict=True):
        again.remember(name, one)
    found += [again.group_of(str(n), one) for n, one in enumerate(members[100:], 100)]
    assert found == expected


@pytest.mark.slow
def test_only_the_newest_inputs_are_remembered() -> None:
    draw = random.Random(9)
    groups = LiveGroups()
    first = member("the very first words", "then others")
    groups_of(groups, [first, *(member(sentence(draw, 4), sentence(draw, 3)) for _ in range(KEPT))])
    assert len(groups._inputs) == KEPT
    assert groups.group_of("again", first) == "again"
    assert sum(groups._sizes.values()) == KEPT
    assert all(groups._with[code] for code in groups._live)
    assert set(groups._live) == set(groups._with)


@pytest.mark.slow
def test_long_documents_are_compared_by_a_sample_of_their_terms() -> None:
    draw = random.Random(10)
    documents = [sentence(draw, 3000) for _ in range(12)]
    groups = LiveGroups(some_reference())
    first = groups_of(groups, [member(text) for text in documents])
    assert len(set(first)) == 12
    again = [f"{text} {sentence(draw, 90)}" for text in documents]  # with an answer appended
    assert [groups.group_of("new", member(text)) for text in again] == first
    halves = [member(" ".join(text.split()[:1000])) for text in documents]
    assert [groups.group_of("half", one) for one in halves] == first
    assert all(len(one.terms.codes) <= MAX_TERMS for one in groups._inputs)


def test_no_text_is_kept() -> None:
    groups = LiveGroups(some_reference(10))
    groups.group_of("a", member("my name is Rumpelstiltskin", "and I live in the woods"))
    assert "rumpelstiltskin" not in repr(vars(groups)).lower()


def test_texts_without_words_have_groups() -> None:
    groups = LiveGroups()
    assert groups_of(groups, [member(""), member(""), member("?!"), member("你好吗 朋友")]) == [
        "0",
        "0",
        "2",
        "3",
    ]
