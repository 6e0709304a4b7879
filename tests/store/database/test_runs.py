"""Runs in the database: what goes in comes out the same, and writing is idempotent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from store.database.database import Database
from store.database.runs import (
    append_run_event,
    ended_runs,
    evaluations_of_run,
    events_of_last_run,
    events_of_run,
    replace_evaluations,
    replace_examples,
    replace_teacher_calls,
    save_policy,
    stage_detail,
    unfinished_runs,
)
from store.ids import new_id
from store.records import (
    RunState,
)
from tests.helpers.samples import (
    a_run_event,
    a_teacher_call,
    an_evaluation,
    an_example,
)
from tests.helpers.stored import examples_of_run, policy_of_run, teacher_calls_of_run

Changes = dict[str, Any]

ROWS_OF_RUNS: list[tuple[Callable[..., None], Callable[..., Any], Callable[..., Any], Changes]] = [
    (
        replace_examples,
        examples_of_run,
        an_example,
        {"parent_ids": [], "source_trace_id": new_id(), "target": "\0 📦"},
    ),
    (replace_teacher_calls, teacher_calls_of_run, a_teacher_call, {"purpose": "policy"}),
    (
        replace_evaluations,
        evaluations_of_run,
        an_evaluation,
        {"student_output": None, "confidence": None, "fault": "x"},
    ),
]


@pytest.mark.parametrize(
    ("write", "read", "make", "odd"), ROWS_OF_RUNS, ids=["examples", "calls", "evaluations"]
)
def test_rows_of_a_run_are_replaced_as_a_whole(
    db: Database,
    write: Callable[..., None],
    read: Callable[..., Any],
    make: Callable[..., Any],
    odd: Changes,
) -> None:
    run_id, other = new_id(), new_id()
    first, second = [make(run_id), make(run_id, **odd), make(run_id)], [make(run_id)]
    others = [make(other)]
    assert read(db, run_id) == []
    write(db, other, others)
    write(db, run_id, first)
    assert sorted(read(db, run_id), key=repr) == sorted(first, key=repr)
    write(db, run_id, first)
    assert len(read(db, run_id)) == 3
    write(db, run_id, second)
    assert read(db, run_id) == second
    write(db, run_id, [])
    assert read(db, run_id) == []
    assert read(db, other) == others


@pytest.mark.slow
def test_a_batch_of_thousands_of_examples_is_written_whole(db: Database) -> None:
    run_id = new_id()
    examples = [an_example(run_id, target=f"{n} größer") for n in range(3000)]
    replace_examples(db, run_id, examples)
    assert {e.target for e in examples_of_run(db, run_id)} == {e.target for e in examples}


def test_a_run_has_one_policy_the_last_one_saved(db: Database) -> None:
    run_id = new_id()
    assert policy_of_run(db, run_id) is None
    save_policy(db, run_id, "triage", {"constraints": ["one word"]})
    save_policy(db, run_id, "triage", {"constraints": ["one word", "lower case"]})
    assert policy_of_run(db, run_id) == {"constraints": ["one word", "lower case"]}


def test_half_a_surrogate_pair_in_an_answer_does_not_stop_a_run(db: Database) -> None:
    run_id = new_id()
    replace_examples(db, run_id, [an_example(run_id, target="half \ud83d")])
    assert examples_of_run(db, run_id)[0].target == "half \ufffd"


def test_an_event_that_is_appended_again_is_there_once(db: Database) -> None:
    run_id = new_id()
    first, second = a_run_event(run_id), a_run_event(run_id, 1, state=RunState.TRAINED)
    for event in (second, first, second):
        append_run_event(db, event)
    assert events_of_run(db, run_id) == [first, second]
    assert stage_detail(db, run_id, "trained") == second.detail
    assert stage_detail(db, run_id, "evaluated") == {}
    assert events_of_run(db, new_id()) == []


def test_unfinished_and_ended_runs_are_told_apart(db: Database) -> None:
    runs = [f"018f0000-0000-7000-8000-00000000000{n}" for n in range(5)]
    ends = {
        runs[0]: ("triage", [RunState.COLLECTED, RunState.FAILED]),
        runs[1]: ("triage", [RunState.COLLECTED, RunState.PROMOTED]),
        runs[2]: ("orders", [RunState.COLLECTED, RunState.AMPLIFIED]),
        runs[3]: ("triage", [RunState.COLLECTED]),
        runs[4]: ("mood", [RunState.REJECTED]),
    }
    last = {}
    for number, (run_id, (task, states)) in enumerate(ends.items()):
        for seq, state in enumerate(states):
            last[run_id] = a_run_event(run_id, seq, task=task, state=state, at=10.0 * number + seq)
            append_run_event(db, last[run_id])
    assert unfinished_runs(db) == [last[runs[2]], last[runs[3]]]
    assert ended_runs(db, "triage") == [last[runs[0]], last[runs[1]]]
    assert ended_runs(db, "orders") == []
    assert [e.state for e in events_of_last_run(db, "orders")] == ["collected", "amplified"]
    assert events_of_last_run(db, "nobody") == []
