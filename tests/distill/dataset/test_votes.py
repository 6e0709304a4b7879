"""Votes on an answer: by prompt and input, and of the teacher's newest snapshot."""

from __future__ import annotations

from collections.abc import Sequence

from distill.dataset.rows import Selection, choose_rows
from store.records import LoggedExchange
from store.settings.tasks import SplitSettings
from tests.helpers.demo_rows import an_exchange

SORT, MOOD = "Sort the parcel question.", "Name the mood of the question."
OLD, NEW = "gpt-big-2026-01-10", "gpt-big-2026-06-20"


def chosen(traces: Sequence[LoggedExchange]) -> Selection:
    return choose_rows(traces, SplitSettings())


def asked(n: int, snapshot: str | None, answer: str, at: float) -> LoggedExchange:
    return an_exchange(f"question {n} about it", answer, at=at, response_model=snapshot)


def test_one_input_under_two_prompts_is_two_rows_in_one_split() -> None:
    traces = [
        an_exchange(f"parcel {n} of mine", answer, system=system)
        for n in range(100)
        for system, answer in ((SORT, "delivery"), (MOOD, "calm"))
    ]
    selection = chosen(traces)
    assert len(selection.rows) == 200 and not selection.left_out
    splits: dict[str, set[str]] = {}
    groups: dict[str, set[int | None]] = {}
    for row in selection.rows:
        splits.setdefault(row.input_hash, set()).add(row.split)
        groups.setdefault(row.input_hash, set()).add(row.group)
    assert all(len(found) == 1 for found in (*splits.values(), *groups.values()))
    assert {row.target for row in selection.rows} == {"delivery", "calm"}


def test_the_newest_snapshot_of_the_teacher_counts() -> None:
    """Three old answers do not outvote a new one."""
    old = [asked(n, OLD, "shipping", 100.0 * k + n) for n in range(50) for k in range(3)]
    new = [asked(n, NEW, "delivery", 1000.0 + n) for n in range(50)]
    selection = chosen([*old, *new])
    assert {row.target for row in selection.rows} == {"delivery"}
    assert selection.left_out == {"other_snapshot": 150}
    assert selection.snapshots == {"current": [NEW], "other": [OLD]}


def test_what_only_an_other_snapshot_has_answered_is_learned_and_never_judged() -> None:
    old = [asked(n, OLD, "shipping", float(n)) for n in range(200)]
    new = [asked(n, NEW, "delivery", 1000.0 + n) for n in range(150, 250)]
    selection = chosen([*old, *new])
    assert {row.target for row in selection.heldout + selection.calibration} == {"delivery"}
    assert {row.target for row in selection.train} == {"shipping", "delivery"}
    assert selection.snapshots == {"current": [NEW], "other": [OLD]}


def test_a_snapshot_that_answers_once_in_a_thousand_changes_nothing() -> None:
    traces = [asked(n, OLD, "shipping", float(n)) for n in range(300)]
    traces.append(asked(299, NEW, "delivery", 1000.0))
    selection = chosen(traces)
    assert len(selection.rows) == 300
    assert {row.target for row in selection.rows} == {"shipping"}
    assert selection.left_out == {"other_snapshot": 1}


def test_two_snapshots_between_which_requests_are_balanced_both_count() -> None:
    traces = [asked(n, (OLD, NEW)[n % 2], "shipping", float(n)) for n in range(300)]
    selection = chosen(traces)
    assert len(selection.rows) == 300 and not selection.left_out
    assert selection.snapshots == {"current": sorted([OLD, NEW])}


def test_answers_of_an_unknown_snapshot_count_like_current_ones() -> None:
    """Logs without the model that answered, or a client's corrections."""
    traces = [asked(n, None, "shipping", float(n)) for n in range(100)]
    traces += [asked(n, NEW, "shipping", 1000.0 + n) for n in range(100, 130)]
    selection = chosen(traces)
    assert len(selection.rows) == 130 and not selection.left_out
