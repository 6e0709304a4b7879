"""Splits: the newest groups judge; no input is in two; what was learned from never judges."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from math import sqrt
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.dataset.rows import Selection, choose_rows
from distill.dataset.split import SplitGroup, split_groups
from store.chat.shape import input_hash
from store.database.forgetting import digest_of
from store.database.runs import UsedInputs
from store.records import LoggedExchange, Split
from store.settings.tasks import SplitSettings
from tests.helpers.demo_rows import an_exchange

SHARES = SplitSettings()
texts = st.text(ascii_letters + digits + " .,!?", max_size=30)


def hash_of(text: str) -> str:
    return input_hash([{"role": "user", "content": text}])


def a_group(name: str, began: float = 0.0, **changes: bool) -> SplitGroup:
    return SplitGroup(**{"name": name, "began": began, "can_judge": True, **changes})


def used(*, learned: set[str] | None = None, judged: set[str] | None = None) -> UsedInputs:
    return UsedInputs(
        learned=frozenset(learned or ()),
        judged=frozenset(judged or ()),
        expired=frozenset(),
        salt="",
    )


def told(count: int, *, start: int = 0) -> list[LoggedExchange]:
    """Different requests, one a second."""
    return [an_exchange(f"{i * 7919 % 10007} {chr(97 + i % 26)}{i}", at=float(i))
            for i in range(start, start + count)]  # fmt: skip


def splits_of(selection: Selection) -> dict[str, Split]:
    return {row.input_hash: row.split for row in selection.rows}


@given(st.floats(0.05, 0.9), st.floats(0.05, 0.9))
@pytest.mark.slow
def test_splits_have_the_shares_of_the_settings(train: float, rest: float) -> None:
    calibration = (1 - train) * rest
    shares = SplitSettings(train=train, calibration=calibration, heldout=1 - train - calibration)
    groups = [a_group(hash_of(str(i)), float(i)) for i in range(2000)]
    result = Counter(split_groups(groups, shares).by_name.values())
    assert result["heldout"] == round(2000 * shares.heldout)
    # five standard deviations: one false alarm in millions of draws
    deviation = sqrt(shares.train * shares.calibration / 2000)
    assert abs(result["train"] / 2000 - shares.train) < 5 * deviation + 1e-3


def test_the_newest_groups_are_held_out() -> None:
    selection = choose_rows(told(400), SHARES)
    at = {hash_of(t.request.messages[-1]["content"]): t.asked_at for t in told(400)}
    heldout = [at[row.input_hash] for row in selection.heldout]
    assert len(selection.heldout) == 120
    assert min(heldout) > max(at[row.input_hash] for row in selection.seen)
    assert (selection.heldout_since, selection.mixed_in_time) == (min(heldout), False)


def test_without_times_a_hash_splits_and_the_selection_says_so() -> None:
    traces = [an_exchange(f"{i} {chr(97 + i % 26)}{i}", at=5.0) for i in range(200)]
    selection = choose_rows(traces, SHARES)
    assert selection.groups["heldout"] == 60
    assert selection.groups["calibration"] >= 25  # of the 40 that are wanted
    assert selection.mixed_in_time
    places = [i for i, row in enumerate(selection.rows) if row.split == "heldout"]
    assert splits_of(choose_rows(traces[::-1], SHARES)) == splits_of(selection)
    assert len({place // 50 for place in places}) == 4


def test_times_beyond_the_clock_are_not_the_newest() -> None:
    groups = [a_group(hash_of(str(i)), float(i)) for i in range(100)]
    ahead = [replace(group, began=group.began + 1e6) for group in groups[:30]]
    splits = split_groups([*ahead, *groups[30:]], SHARES, now=100.0)
    held = {name for name, split in splits.by_name.items() if split == "heldout"}
    assert held == {group.name for group in groups[70:]}
    assert (splits.since, splits.mixed) == (70.0, False)
    # where no time can be right, a hash decides
    every = split_groups([replace(g, began=1e6 + g.began) for g in groups], SHARES, now=100.0)
    assert (every.since, every.mixed) == (None, True)


@given(st.lists(texts, max_size=30), st.lists(texts, max_size=30))
@pytest.mark.slow
def test_no_input_and_no_group_is_in_two_splits(first: list[str], later: list[str]) -> None:
    """Spellings of one input count as one."""
    spelt = [*first, *(t.upper() for t in first), *(f"  {t}  " for t in first)]
    exchanges = [an_exchange(t, at=float(i)) for i, t in enumerate((*spelt, *later))]
    rows = choose_rows(exchanges, SHARES).rows
    assert len({row.input_hash for row in rows}) == len(rows)
    for text in first:
        assert hash_of(text) == hash_of(text.upper()) == hash_of(f"  {text}  ")
    splits: defaultdict[int | None, set[Split]] = defaultdict(set)
    for row in rows:
        splits[row.group].add(row.split)
    assert all(len(of_group) == 1 for of_group in splits.values())


def test_a_group_that_grows_does_not_become_a_new_one() -> None:
    """Its newest rows are as new as the held-out ones; it began before those."""
    ticket = [an_exchange("The lamp of the blue kitchen broke again", at=1.5)]
    updates = [
        an_exchange(f"The lamp of the blue kitchen broke again. Update {i}", at=500.0 + i)
        for i in range(5)
    ]
    selection = choose_rows([*told(400), *ticket, *updates], SHARES)
    of_ticket = [row for row in selection.rows if "lamp" in row.messages[-1]["content"]]
    assert len(of_ticket) == 6
    assert len({row.group for row in of_ticket}) == 1
    assert "heldout" not in {row.split for row in of_ticket}


def test_what_was_learned_from_is_not_held_out_when_it_is_the_newest() -> None:
    traces = told(400)
    newest = {hash_of(t.request.messages[-1]["content"]) for t in traces[-50:]}
    by_trace = {t.trace_id for t in traces[-100:-50]}  # a template that is recognised anew
    selection = choose_rows(traces, SHARES, used=used(learned=newest | by_trace))
    heldout = {row.trace_id for row in selection.heldout}
    assert heldout == {t.trace_id for t in traces[180:300]}
    assert selection.mixed_in_time


def test_what_was_learned_from_and_has_expired_is_not_held_out() -> None:
    traces = told(400)
    digests = {
        digest_of("salt", "input", hash_of(t.request.messages[-1]["content"])) for t in traces[-9:]
    }
    before = replace(used(), expired=frozenset(digests), salt="salt")
    heldout = {row.trace_id for row in choose_rows(traces, SHARES, used=before).heldout}
    assert heldout == {t.trace_id for t in traces[-129:-9]}


def test_a_group_that_merges_with_what_was_learned_from_is_not_held_out() -> None:
    old, new = "The lamp of the blue kitchen broke again", "My parrot has eaten half of the lamp"
    both = f"{old}. {new}"
    traces = [
        *told(100),
        an_exchange(old, at=150.0),
        an_exchange(new, at=160.0),
        an_exchange(both, at=170.0),
    ]

    def of_them(selection: Selection) -> set[Split]:
        words = [row for row in selection.rows if "lamp" in row.messages[-1]["content"]]
        assert len(words) == 3 and len({row.group for row in words}) == 1
        return {row.split for row in words}

    assert of_them(choose_rows(traces, SHARES)) == {"heldout"}
    assert "heldout" not in of_them(choose_rows(traces, SHARES, used=used(learned={hash_of(old)})))
    assert "heldout" not in of_them(choose_rows(traces, SHARES, used=used(learned={hash_of(new)})))


def test_what_the_certificate_in_force_was_judged_on_is_not_trained_on() -> None:
    first = choose_rows(told(200), SHARES)
    judged = {row.input_hash for row in first.heldout}
    learned = {row.input_hash for row in first.seen}
    second = choose_rows(told(400), SHARES, used=used(learned=learned, judged=judged))
    splits = splits_of(second)
    assert {splits[name] for name in judged} == {"calibration"}
    assert {splits[name] for name in learned} == {"train", "calibration"}
    assert not second.mixed_in_time
    # when it is in force no more, its rows may be learned from
    later = splits_of(choose_rows(told(400), SHARES, used=used(learned=learned)))
    assert {later[name] for name in judged} == {"train", "calibration"}


def test_after_a_drift_the_newest_of_what_came_since_judges_and_the_rest_is_learned() -> None:
    selection = choose_rows(told(400), SHARES, suspect_since=300.0)
    at = {hash_of(t.request.messages[-1]["content"]): t.asked_at for t in told(400)}
    assert {at[row.input_hash] for row in selection.heldout} == set(map(float, range(370, 400)))
    since = [row for row in selection.seen if at[row.input_hash] >= 300]
    assert {row.split for row in since} == {"train", "calibration"}
    before = {row.split for row in selection.rows if at[row.input_hash] < 300}
    assert before == {"train"}
    assert "outdated" not in selection.left_out


def test_a_clock_that_is_set_back_only_mixes() -> None:
    """Times are wrong then, but no group is in two splits, and the share is held out."""
    traces = [an_exchange(f"{i} {chr(97 + i % 26)}{i}", at=float(i)) for i in range(200)]
    back = [an_exchange(f"b{i} {chr(97 + i % 26)}{i}", at=float(i - 100)) for i in range(200, 400)]
    selection = choose_rows([*traces, *back], SHARES)
    assert selection.groups["heldout"] == 120
    assert len(splits_of(selection)) == len(selection.rows)


def test_the_hash_of_equally_old_groups_is_pinned() -> None:
    """A change of the formula would mix held-out inputs into the training of later runs."""
    groups = [a_group(hash_of(str(i))) for i in range(6)]
    result = split_groups(groups, SHARES).by_name
    assert [result[group.name] for group in groups] == [
        "heldout", "train", "train", "train", "train", "heldout",
    ]  # fmt: skip
