"""A task's numbers add up."""

from __future__ import annotations

import pytest

from distill.collect import collect
from store.database.database import Database
from store.database.runs import replace_examples, replace_teacher_calls
from store.database.statistics import ErrorCount, ExampleCounts, TokenCount, task_statistics
from store.ids import new_id
from store.settings.config import StoreSettings
from store.settings.teachers import Price
from tests.helpers.samples import a_teacher_call, a_trace, an_example, write_segment

PRICES = {"gpt-4o": Price(1e-5, 1e-4)}


def traffic() -> list[dict[str, object]]:
    teacher = [{"duration_ms": float(ms), "start_time": float(ms)} for ms in range(1, 101)]
    unsure = {"route": "fallback", "reason": "student_unsure", "duration_ms": 40.0}
    student = {"served_by": "student", "route": "student", "reason": "certified"}
    broken = {"outcome": "error", "status_code": 429, "error_type": "rate_limit_exceeded"}
    return [
        *teacher,
        {"duration_ms": 5e9, "outcome": "client_gone", "start_time": 1.0, "input_tokens": None},
        {**broken, "served_by": None, "input_tokens": None, "output_tokens": None},
        {**broken, "served_by": None, "input_tokens": None, "output_tokens": None},
        {"outcome": "teacher_broke", "request_model": "unknown"},
        *[{**unsure} for _ in range(3)],
        *[{**student, "duration_ms": 8.0} for _ in range(20)],
        *[{"task": "orders"} for _ in range(5)],
        {"task": None, "reason": "untagged"},
    ]


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Database:
    folder = tmp_path_factory.mktemp("statistics")
    write_segment(folder / "journal", *(a_trace(**changes) for changes in traffic()))
    db = Database(folder / "understudy.duckdb", StoreSettings())
    collect(db, folder / "journal", PRICES)
    older, newer = new_id(), "ffffffff-ffff-7fff-bfff-ffffffffffff"
    replace_examples(db, older, [an_example(older, status="rejected", reason="old")])
    replace_examples(
        db,
        newer,
        [
            *[an_example(newer) for _ in range(3)],
            *[an_example(newer, origin="trace", reason="real") for _ in range(2)],
            *[an_example(newer, status="rejected", reason="duplicate") for _ in range(4)],
            an_example(newer, status="rejected", reason="schema"),
        ],
    )
    calls = [
        *[a_teacher_call(older) for _ in range(2)],
        a_teacher_call(newer, purpose="policy"),
        a_teacher_call(newer, task="orders", model="unknown"),
    ]
    replace_teacher_calls(db, older, calls[:2])
    replace_teacher_calls(db, newer, calls[2:])
    return db


def test_requests_and_latencies_are_counted_by_route(db: Database) -> None:
    found = task_statistics(db, "triage", recent_since=51.0)
    assert found.traces == 127
    teacher, student = found.served["teacher"], found.served["student"]
    assert (teacher.requests, teacher.errors) == (104, 3)
    assert (teacher.p50_ms, teacher.p95_ms) == (50.5, pytest.approx(95.05))  # whole answers alone
    assert (teacher.recent_p50_ms, teacher.recent_requests) == (75.5, 53)
    assert (student.requests, student.errors, student.p50_ms, student.p95_ms) == (20, 0, 8.0, 8.0)
    assert found.served["fallback"].reasons == {"student_unsure": 3}
    assert teacher.reasons == {"no_student": 104}


def test_errors_are_counted_by_kind_the_most_common_first(db: Database) -> None:
    assert task_statistics(db, "triage").errors == [
        ErrorCount(status_code=429, type="rate_limit_exceeded", requests=2),
        ErrorCount(status_code=200, type="teacher_broke", requests=1),
    ]


def test_tokens_and_cost_of_traffic_are_summed(db: Database) -> None:
    found = task_statistics(db, "triage")
    assert found.traffic == TokenCount(calls=105, input=10_400, output=1_050)
    assert found.student == TokenCount(calls=20, input=2_000, output=200)
    each = 100 * 1e-5 + 10 * 1e-4
    assert found.traffic_cost == pytest.approx(103 * each)
    assert found.mean_teacher_cost == pytest.approx(each)


def test_tokens_and_cost_of_distilling_are_summed_by_purpose(db: Database) -> None:
    found = task_statistics(db, "triage", prices=PRICES)
    assert found.distilling == {
        "answers": TokenCount(calls=2, input=400, output=40),
        "policy": TokenCount(calls=1, input=200, output=20),
    }
    assert found.distilling_cost == pytest.approx(600 * 1e-5 + 60 * 1e-4)
    assert task_statistics(db, "orders", prices=PRICES).distilling_cost is None  # no price known
    assert task_statistics(db, "nobody", prices=PRICES).distilling_cost == 0


def test_examples_of_the_last_run_by_origin(db: Database) -> None:
    assert task_statistics(db, "triage").examples == {
        "synthetic": ExampleCounts(kept=3, rejected=5, reasons={"duplicate": 4, "schema": 1}),
        "trace": ExampleCounts(kept=2),
    }


def test_new_traces_are_counted_from_the_last_judged_run(db: Database) -> None:
    assert task_statistics(db, "orders").new_traces == 5
    assert task_statistics(db, "triage", used_until=90.0).new_traces == 10


def test_untagged_requests_and_unknown_tasks_have_statistics_too(db: Database) -> None:
    untagged = task_statistics(db, None)
    assert (untagged.traces, untagged.served["teacher"].reasons) == (1, {"untagged": 1})
    empty = task_statistics(db, "nobody")
    assert (empty.traces, empty.served, empty.errors, empty.examples) == (0, {}, [], {})
    assert (empty.traffic, empty.traffic_cost, empty.mean_teacher_cost) == (
        TokenCount(calls=0, input=0, output=0),
        None,
        None,
    )
