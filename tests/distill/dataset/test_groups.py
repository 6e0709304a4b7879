"""Groups: what belongs together is one group, and what only looks alike is not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import pytest

from distill.dataset.groups import MAX_BRANCHES, MAX_ROWS, Member, group
from distill.dataset.rows import Selection, choose_rows
from store.settings.tasks import SplitSettings
from tests.helpers.demo_rows import an_exchange

LABELS = ("red", "blue", "green", "black")
WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("lt", "rm", "st", "nd", "ck")]
NAMES = [f"{a}{b}" for a in ("Lor", "Mik", "San", "Tob", "Ver", "Xen") for b in ("a", "en", "is")]


def member(at: int, *users: str, answer: str = "red", text: str = "") -> Member:
    said = "\n".join(users)
    return Member(name=said or text, at=float(at), users=users, text=text or said, answer=answer)


def sizes(members: Iterable[Member]) -> list[int]:
    """The sizes of the groups, the largest first."""
    return sorted(Counter(group(list(members)).names).values(), reverse=True)


def text(rng: random.Random, n: int, words: Sequence[str] = WORDS) -> str:
    return " ".join(rng.choice(words) for _ in range(n))


def tickets(rng: random.Random, n: int, updates: int, *, longer: int = 2) -> list[Member]:
    """So many updates of each of n tickets, whose answer is the ticket's and nothing in it."""
    members = []
    for _ in range(n):
        body, answer = text(rng, 16), rng.choice(LABELS)
        for update in range(updates):
            said = f"{body}. Update {update}: {text(rng, longer)}"
            members.append(member(len(members), said, answer=answer))
    rng.shuffle(members)
    return members


@pytest.mark.parametrize(
    ("n", "updates"), [(80, 6), (20, 24), (150, 2), (30, 50), (10, 100), (5, 200)]
)
def test_updates_of_one_ticket_are_one_group(n: int, updates: int) -> None:
    assert sizes(tickets(random.Random(1), n, updates)) == [updates] * n


def test_updates_that_are_half_as_long_as_the_ticket_are_one_group() -> None:
    assert sizes(tickets(random.Random(1), 80, 6, longer=8)) == [6] * 80


def test_tickets_that_share_their_words_alone_are_no_group() -> None:
    assert sizes(tickets(random.Random(1), 480, 1)) == [1] * 480


@pytest.mark.parametrize(
    "value",
    [
        lambda rng: str(rng.randrange(10**8, 10**9)),
        lambda rng: f"{rng.getrandbits(64):016x}-{rng.getrandbits(32):08x}",
        lambda rng: f"{rng.choice(NAMES)}{rng.randrange(99)}@example.com",
        lambda rng: f"2026-0{rng.randrange(1, 10)}-1{rng.randrange(10)}T09:1{rng.randrange(10)}Z",
        lambda rng: rng.choice(["open", "closed", "pending", "new", "won", "lost", "held"]),
    ],
    ids=["number", "hex", "address", "time", "status"],
)
def test_a_text_with_another_id_date_or_status_is_the_same_case(value: Any) -> None:
    rng = random.Random(2)
    texts = [(text(rng, 8), text(rng, 3)) for _ in range(40)]
    members = [
        member(i, f"{texts[i % 40][0]} {value(rng)} {texts[i % 40][1]}", answer=LABELS[i % 3])
        for i in range(400)
    ]
    assert len(sizes(members)) == 40


@pytest.mark.parametrize("forms", [1, 5])
@pytest.mark.slow
def test_a_long_form_of_which_two_fields_vary_is_neither_one_group_nor_a_few(forms: int) -> None:
    rng = random.Random(3)
    bodies = [(text(rng, 200), text(rng, 200)) for _ in range(forms)]
    products = [f"prod{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    surnames = [f"{a}{b}{c}" for a in NAMES for b in ("mann", "son", "ski") for c in ("", "a", "o")]
    members = []
    for i in range(200 * forms):
        first, second = rng.choice(bodies)
        name = f"{rng.choice(NAMES)} {rng.choice(surnames)}"
        said = f"{first} name: {name} {second} product: {rng.choice(products)}"
        members.append(member(i, said, answer=rng.choice(LABELS)))
    found = sizes(members)
    assert len(found) > 0.8 * len(members) and found[0] <= 8


def test_one_form_among_other_texts_is_no_group() -> None:
    rng = random.Random(4)
    form = text(rng, 300)
    members = [
        member(i, f"{form} {text(rng, 4)}" if i % 20 else text(rng, 12), answer=rng.choice(LABELS))
        for i in range(400)
    ]
    assert sizes(members)[0] <= 8


def test_turns_of_one_conversation_are_one_group() -> None:
    rng = random.Random(5)
    members = []
    for _ in range(60):
        turns = [text(rng, 6) for _ in range(6)]
        members += [member(len(members) + n, *turns[: n + 1]) for n in range(6)]
    assert sizes(members) == [6] * 60


@pytest.mark.parametrize("opening", [("hi",), ("say yes or no", "yes", "again")])
def test_conversations_that_begin_alike_are_not_one_group(opening: tuple[str, ...]) -> None:
    """A greeting, or examples that stand before each input."""
    rng = random.Random(6)
    members = [member(0, *opening)]
    for _ in range(60):
        turns = [*opening, *(text(rng, 6) for _ in range(3))]
        members += [
            member(len(members) + n, *turns[: n + 1]) for n in range(len(opening), len(turns))
        ]
    result = group(members)
    assert sorted(Counter(result.names).values()) == [1] + [3] * 60
    assert result.openings == {0}


def test_a_thread_that_grows_or_moves_on_is_one_group() -> None:
    rng = random.Random(7)
    growing, moving = [], []
    for thread in range(60):
        parts = [text(rng, 14) for _ in range(14)]
        for n in range(10):
            growing.append(member(thread, " ".join(parts[: n + 1])))
            moving.append(member(thread, " ".join(parts[n : n + 5])))
    assert sizes(growing) == [10] * 60
    assert sizes(moving) == [10] * 60


def test_a_spelling_with_other_punctuation_is_the_same_text() -> None:
    members = [member(0, "Where is my order?"), member(1, "where is MY order"), member(2, "Hello")]
    assert sizes(members) == [2, 1]


def test_inputs_without_words_are_grouped_by_nothing() -> None:
    assert sizes([member(0, ":-)"), member(1, ":-("), member(2, ""), member(3, "?!")]) == [1] * 4
    assert group([]).names == []


def test_the_oldest_names_a_group_whatever_the_order_and_keeps_it_when_it_grows() -> None:
    rng = random.Random(8)
    members = tickets(rng, 60, 6)
    before = {m.name: name for m, name in zip(members, group(members).names, strict=True)}
    shuffled = members[:]
    rng.shuffle(shuffled)
    again = {m.name: name for m, name in zip(shuffled, group(shuffled).names, strict=True)}
    assert again == before
    at = {m.name: m.at for m in members}
    later = [
        member(10_000 + i, f"{m.name} and a later one", answer=m.answer)
        for i, m in enumerate(members[:50])
    ]
    grown = {
        m.name: name
        for m, name in zip([*members, *later], group([*members, *later]).names, strict=True)
    }
    assert all(grown[name] == before[name] for name in before)
    assert all(grown[m.name] == before[old.name] for m, old in zip(later, members, strict=False))
    assert all(at[before[name]] <= at[name] for name in before)


def test_what_links_two_groups_makes_them_one_under_the_older_name() -> None:
    rng = random.Random(9)
    one, other = text(rng, 12), text(rng, 12)
    rest = [member(10 + i, text(rng, 12)) for i in range(50)]
    apart = group([member(0, one), member(1, other), *rest]).names
    assert apart[0] != apart[1]
    both = member(2, f"{one} {other}")
    assert set(group([member(0, one), member(1, other), both, *rest]).names[:3]) == {one}


def test_a_chain_of_different_cases_falls_apart_and_names_what_stays_close() -> None:
    rng = random.Random(10)
    words = [text(rng, 1) + text(rng, 1) + text(rng, 1) for _ in range(4 * MAX_ROWS + 12)]
    members = [
        member(i, " ".join(words[i : i + 12]), answer=f"answer {i}") for i in range(4 * MAX_ROWS)
    ]
    result = group(members)
    assert max(Counter(result.names).values()) <= 4 * MAX_ROWS
    for first, second in result.close:
        assert result.names[first] != result.names[second]


@pytest.mark.slow
def test_twenty_thousand_inputs_are_grouped() -> None:
    rng = random.Random(11)
    members = [member(i, text(rng, 20), answer=rng.choice(LABELS)) for i in range(20_000)]
    assert len(set(group(members).names)) > 19_800


# ---- the rows of a run -------------------------------------------------------------------------


def selection_of(conversations: Iterable[Sequence[tuple[str, str]]]) -> Selection:
    """The rows of these conversations, each turn asked with what came before."""
    exchanges = []
    for turns in conversations:
        history: list[dict[str, str]] = []
        for user, answer in turns:
            history.append({"role": "user", "content": user})
            exchanges.append(
                an_exchange(
                    user,
                    at=float(len(exchanges)),
                    input_messages=orjson.dumps(history).decode(),
                    answer=answer,
                    input_hash="",
                )
            )
            history.append({"role": "assistant", "content": answer})
    return choose_rows(exchanges, SplitSettings())


@pytest.mark.parametrize("opening", ["", "hi"])
def test_no_held_out_answer_stands_in_a_prompt_that_is_learned(opening: str) -> None:
    rng = random.Random(12)
    conversations = [
        [
            *([(opening, "Hello, how can I help?")] if opening else []),
            *((text(rng, 5), f"answer {number} {turn}") for turn in range(6)),
        ]
        for number in range(4 * MAX_BRANCHES)
    ]
    selection = selection_of(conversations)
    learned = "\n".join(row.messages_json for row in selection.train)
    assert selection.heldout and selection.train
    assert not any(f'"{row.target}"' in learned for row in selection.heldout)
    where: dict[int | None, set[str]] = {}
    for row in selection.rows:
        where.setdefault(row.group, set()).add(row.split)
    assert all(len(splits) == 1 for splits in where.values())
