"""Frequent inputs: found by their requests, whoever answered, and out of the rows for others."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.dataset.frequent import FrequentInput, read_frequent, write_frequent
from distill.dataset.rows import MAX_REPEATS, Selection, choose_rows
from store.chat.shape import input_hash
from store.database.runs import UsedInputs
from store.database.traces import InputTraffic, RecentInputs
from store.records import LoggedExchange, LoggedRequest
from store.settings.tasks import SplitSettings
from tests.helpers.demo_rows import an_exchange

SHARES = SplitSettings()
PING = "are you still there?"


def others(count: int) -> list[LoggedExchange]:
    return [
        an_exchange(f"{i * 7919 % 10007} {chr(97 + i % 26)}{i}", at=float(i)) for i in range(count)
    ]


def pings(*answers: str, at: float = 0.5, text: str = PING) -> list[LoggedExchange]:
    return [an_exchange(text, answer, at=at + i) for i, answer in enumerate(answers)]


def hash_of(text: str) -> str:
    return input_hash([{"role": "user", "content": text}])


def frequent(selection: Selection) -> dict[str, FrequentInput]:
    return {one.input_hash: one for one in selection.frequent}


def test_an_input_that_is_60_percent_of_the_traffic_stands_for_no_other() -> None:
    selection = choose_rows([*others(200), *pings(*["delivery"] * 300)], SHARES)
    [one] = selection.frequent
    assert (one.input_hash, one.requests, selection.requests) == (hash_of(PING), 300, 500)
    assert len(one.choosing) == len(one.judging) == 150
    judging = [*selection.calibration, *selection.heldout]
    assert hash_of(PING) not in {row.input_hash for row in judging}
    [row] = selection.checked
    assert (row.input_hash, row.target) == (hash_of(PING), "delivery")
    assert selection.groups["heldout"] == len(selection.heldout)


@pytest.mark.slow
def test_inputs_that_come_seldom_are_not_frequent() -> None:
    assert choose_rows([*others(200), *pings(*["a"] * 3)], SHARES).frequent == []
    assert choose_rows([*others(996), *pings(*["a"] * 9)], SHARES).frequent == []
    assert len(choose_rows([*others(800), *pings(*["a"] * 9)], SHARES).frequent) == 1


def test_requests_that_a_student_answered_count() -> None:
    """Afterwards the teacher sees few of them."""
    exchanges = [*others(200), *pings("a", "a")]
    fingerprint = exchanges[0].fingerprint
    served = InputTraffic(
        fingerprint=fingerprint,
        input_hash=hash_of(PING),
        requests=700,
        request=exchanges[-1].request,
    )
    selection = choose_rows(exchanges, SHARES, recent=RecentInputs(1000, [served]))
    [one] = selection.frequent
    assert (one.requests, len(one.answers), selection.requests) == (700, 2, 1000)


def test_a_frequent_input_that_the_teacher_never_answered_is_known() -> None:
    exchanges = others(200)
    unknown = InputTraffic(
        fingerprint=exchanges[0].fingerprint,
        input_hash=hash_of(PING),
        requests=700,
        request=LoggedRequest(messages=[{"role": "user", "content": PING}], params={}, tools=None),
    )
    selection = choose_rows(exchanges, SHARES, recent=RecentInputs(1000, [unknown]))
    assert frequent(selection)[hash_of(PING)].answers == []
    assert selection.checked == []
    elsewhere = InputTraffic(
        fingerprint="of another prompt",
        input_hash=hash_of(PING),
        requests=700,
        request=unknown.request,
    )
    recent = RecentInputs(1000, [elsewhere])
    assert choose_rows(exchanges, SHARES, recent=recent).frequent == []


def test_half_of_the_answers_choose_the_target_and_nothing_of_the_other_half() -> None:
    """Newest first, every other one chooses."""
    answers = ["judges", "chooses"] * 50
    selection = choose_rows([*others(200), *pings(*answers)], SHARES)
    [one] = selection.frequent
    assert {answer.text for answer in one.choosing} == {"chooses"}
    assert {answer.text for answer in one.judging} == {"judges"}
    assert selection.checked[0].target == "chooses"


def test_a_correction_is_the_answer_to_all_requests_with_the_input() -> None:
    given = pings(*["wrong"] * 20)
    corrected = an_exchange(PING, "wrong", at=30.0)
    fields = {name: getattr(corrected, name) for name in corrected.__slots__}
    fields |= {"kind": "correction", "replacement": "right"}
    selection = choose_rows([*others(200), *given, LoggedExchange(**fields)], SHARES)
    [one] = selection.frequent
    assert {answer.text for answer in one.answers} == {"right"}
    assert selection.checked[0].target == "right"


def test_a_frequent_input_of_a_held_out_group_is_checked_and_not_learned() -> None:
    newest = pings(*["a"] * 30, at=900.0)
    selection = choose_rows([*others(200), *newest], SHARES)
    [row] = selection.checked
    assert row.split == "heldout"
    assert row not in selection.train and row not in selection.heldout
    learned = UsedInputs(
        learned=frozenset({hash_of(PING)}), judged=frozenset(), expired=frozenset(), salt=""
    )
    [again] = choose_rows([*others(200), *newest], SHARES, used=learned).checked
    assert again.split != "heldout"


def test_a_changed_answer_since_a_drift_is_the_one_that_counts() -> None:
    before, after = pings(*["old"] * 40, at=1.0), pings(*["new"] * 40, at=150.0)
    selection = choose_rows([*others(200), *before, *after], SHARES, suspect_since=140.0)
    [one] = selection.frequent
    assert {answer.text for answer in one.answers} == {"new"}
    assert selection.checked[0].target == "new"


def test_frequent_inputs_read_back_as_they_were_written(tmp_path: Path) -> None:
    inputs = choose_rows([*others(50), *pings(*["a", "b 📦"] * 5)], SHARES).frequent
    write_frequent(tmp_path / "frequent.jsonl", inputs)
    assert read_frequent(tmp_path / "frequent.jsonl") == inputs
    assert read_frequent(tmp_path / "of an older run") == []


def test_a_frequent_input_is_learned_as_often_as_it_weighs() -> None:
    """One row among hundreds would not be learned, though it is 60 % of the traffic."""
    selection = choose_rows([*others(200), *pings(*["a"] * 300)], SHARES)
    [row] = selection.checked
    assert row.split == "train"
    assert selection.train.count(row) == 1
    assert selection.lessons.count(row) == MAX_REPEATS
    assert len(selection.lessons) == len(selection.train) + MAX_REPEATS - 1
    plain = choose_rows(others(200), SHARES)
    assert plain.lessons == plain.train
