"""Records go in and come out the same; what is written twice is there once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.collect import collect
from store.database import runs
from store.database.comparisons import write_comparisons
from store.database.database import Database
from store.database.promotions import append_promotion, latest_promotions, promotions_of_task
from store.database.runs import (
    append_run_event,
    ended_runs,
    events_of_last_run,
    events_of_run,
    examples_of_run,
    last_run_events,
    policy_of_run,
    replace_examples,
    run_history,
    save_policy,
    stage_detail,
    unfinished_runs,
)
from store.database.traces import (
    audited_exchanges,
    corrected_exchanges,
    new_teacher_traces,
    requests_of_student,
    task_counts,
    teacher_answers,
    traffic_by_fingerprint,
    unaudited_traces,
    uncovered_teacher_traces,
)
from store.ids import new_id
from store.jsontext import to_json_line
from store.records import (
    RunState,
    Trace,
)
from store.settings.config import StoreSettings
from tests.helpers.samples import (
    a_comparison,
    a_feedback,
    a_promotion,
    a_run_event,
    a_teacher_call,
    a_trace,
    an_evaluation,
    an_example,
    write_segment,
)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "understudy.duckdb", StoreSettings()) as opened:
        yield opened


@pytest.fixture
def take(db: Database, tmp_path: Path) -> Callable[..., None]:
    """Takes traces through the journal into the store."""

    def through(*traces: Trace) -> None:
        write_segment(tmp_path / "journal", *traces)
        collect(db, tmp_path / "journal", {})

    return through


PARTS: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
    ("examples", an_example, {"parent_ids": [], "source_trace_id": new_id(), "target": "\0 📦"}),
    ("teacher_calls", a_teacher_call, {"purpose": "policy"}),
    ("evaluations", an_evaluation, {"student_output": None, "confidence": None, "fault": "x"}),
]


@pytest.mark.parametrize(("name", "make", "odd"), PARTS, ids=[p[0] for p in PARTS])
def test_what_a_run_makes_is_replaced_as_a_whole(
    db: Database, name: str, make: Callable[..., Any], odd: dict[str, Any]
) -> None:
    write = getattr(runs, f"replace_{name}")
    read = getattr(runs, f"{name}_of_run")
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


def test_a_batch_of_thousands_is_one_statement(db: Database) -> None:
    run_id = new_id()
    examples = [an_example(run_id, target=f"{n} größer") for n in range(3000)]
    replace_examples(db, run_id, examples)
    assert {e.target for e in examples_of_run(db, run_id)} == {e.target for e in examples}


def test_a_policy_is_kept_once_a_run(db: Database) -> None:
    run_id = new_id()
    assert policy_of_run(db, run_id) is None
    save_policy(db, run_id, "triage", {"constraints": ["one word"]})
    save_policy(db, run_id, "triage", {"constraints": ["one word", "lower case"]})
    assert policy_of_run(db, run_id) == {"constraints": ["one word", "lower case"]}


def test_half_a_surrogate_pair_in_an_answer_does_not_stop_a_run(db: Database) -> None:
    run_id = new_id()
    replace_examples(db, run_id, [an_example(run_id, target="half \ud83d")])
    assert examples_of_run(db, run_id)[0].target == "half \ufffd"


# ---- the history of runs -----------------------------------------------------------------------


def test_an_event_that_is_appended_again_is_there_once(db: Database) -> None:
    run_id = new_id()
    first, second = a_run_event(run_id), a_run_event(run_id, 1, state=RunState.TRAINED)
    for event in (second, first, second):
        append_run_event(db, event)
    assert events_of_run(db, run_id) == [first, second]
    assert stage_detail(db, run_id, "trained") == second.detail
    assert stage_detail(db, run_id, "evaluated") == {}
    assert events_of_run(db, new_id()) == []


def test_where_runs_stand(db: Database) -> None:
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
    assert last_run_events(db) == {
        "mood": last[runs[4]],
        "orders": last[runs[2]],
        "triage": last[runs[3]],
    }
    assert run_history(db, "triage", 2) == [last[runs[3]], last[runs[1]]]
    assert [e.state for e in events_of_last_run(db, "orders")] == ["collected", "amplified"]
    assert events_of_last_run(db, "nobody") == []


def test_the_route_follows_from_the_last_promotion(db: Database) -> None:
    assert latest_promotions(db) == {}
    early = a_promotion(at=1.0)
    late = a_promotion(at=2.0, state="paused", target="teacher", certificate=None, route=None)
    other = a_promotion(at=1.5, task="orders", run_id=None)
    for promotion in (late, early, other):
        append_promotion(db, promotion)
    assert latest_promotions(db) == {"orders": other, "triage": late}
    assert promotions_of_task(db, "triage") == [late, early]
    assert promotions_of_task(db, "triage", limit=1) == [late]


def test_a_promotion_of_a_newer_version_can_be_read(db: Database) -> None:
    promotion = a_promotion(route=None)
    row = to_json_line(promotion).replace(b'"method"', b'"colour":"blue","method"')
    db.execute("insert_promotions", rows=f"[{row.decode()}]")
    assert latest_promotions(db) == {"triage": promotion}


# ---- what is learned from ----------------------------------------------------------------------


def test_only_whole_answers_of_the_teacher_are_learned_from(
    db: Database, take: Callable[..., None]
) -> None:
    usable = [
        a_trace(start_time=3.0),
        a_trace(start_time=5.0, stream=True, api="responses"),
        a_trace(start_time=4.0, content="redacted"),
    ]
    take(
        *usable,
        a_trace(served_by="student", route="student"),
        a_trace(route="fallback", reason="student_unsure"),
        a_trace(outcome="client_gone"),
        a_trace(outcome="teacher_broke"),
        a_trace(outcome="error", status_code=500, served_by=None),
        a_trace(status_code=201),
        a_trace(content="none"),
        a_trace(api="embeddings", operation_name="embeddings"),
        a_trace(api="completions", operation_name="text_completion"),
        a_trace(task="orders"),
        a_trace(task=None),
    )
    found = teacher_answers(db, "triage", 10)
    assert [answer.trace_id for answer in found] == [usable[i].trace_id for i in (1, 2, 0)]
    assert len(teacher_answers(db, "triage", 2)) == 2
    assert new_teacher_traces(db, "triage", 0.0) == 3
    assert new_teacher_traces(db, "triage", 3.0) == 2
    assert new_teacher_traces(db, "nobody", 0.0) == 0
    assert task_counts(db) == {"orders": 1, "triage": 12}


OPTED_OUT = [{"content": "none"}, {"operation_name": "embeddings", "api": "embeddings"}]


@pytest.mark.parametrize("changes", OPTED_OUT)
def test_what_has_no_texts_is_in_nothing_that_is_made_of_texts(
    db: Database, take: Callable[..., None], changes: dict[str, Any]
) -> None:
    student = {"served_by": "student", "route": "student", "student_id": new_id()}
    kept, hidden = a_trace(**student), a_trace(**student, **changes)
    take(kept, hidden, a_trace(**changes))
    for trace in (kept, hidden):
        audit = {"kind": "audit", "student_id": student["student_id"], "at": trace.end_time}
        write_comparisons(db, [a_comparison(trace_id=trace.trace_id, **audit)])
        take(a_feedback(trace_id=trace.trace_id, correction="refund"))

    found = traffic_by_fingerprint(db, "triage", requests=9, newest=9, shapes=9)
    assert [shape.requests for shape in found] == [1]
    for rows in (
        audited_exchanges(db, "triage", 9),
        corrected_exchanges(db, "triage", 9),
    ):
        assert [exchange.trace_id for exchange in rows] == [kept.trace_id]
    assert uncovered_teacher_traces(db, "triage", 0.0) == 0
    requests = requests_of_student(db, student["student_id"], 0.0, 9)
    assert {r.trace_id: r.has_texts for r in requests} == {
        kept.trace_id: True,
        hidden.trace_id: False,
    }
    db.execute("delete_comparisons", kind="audit", ids=[kept.trace_id, hidden.trace_id])
    owed = unaudited_traces(db, student["student_id"], 0.0)
    assert [trace_id for trace_id, _ in owed] == [kept.trace_id]


# ---- lines -------------------------------------------------------------------------------------


def test_a_record_is_one_line() -> None:
    event = a_run_event(new_id(), detail={"note": "two\nlines", "loss": float("nan")})
    line = to_json_line(event)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert b'"loss":null' in line
    assert to_json_line(replace(event, reason="\ud83d")) == to_json_line(
        replace(event, reason="\ufffd")
    )
