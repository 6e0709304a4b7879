"""What is no chat counts in a task's traffic and cost, and in nothing that is learned or saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.collect import collect
from store.database.database import Database
from store.database.statistics import TaskStatistics, task_statistics
from store.settings.config import StoreSettings
from store.settings.teachers import Price
from tests.helpers.samples import a_trace, write_segment

PRICES = {"gpt-4o": Price(1e-5, 1e-4), "embedder": Price(1e-6, 0.0)}
EMBEDDED = {
    "api": "embeddings",
    "operation_name": "embeddings",
    "reason": "other_api",
    "request_model": "embedder",
    "output_tokens": None,
    "output_messages": None,
    "finish_reasons": [],
}
COMPLETED = {"api": "completions", "operation_name": "text_completion", "reason": "other_api"}


@pytest.fixture
def found(tmp_path: Path) -> TaskStatistics:
    traces = [
        *[a_trace() for _ in range(2)],
        a_trace(api="messages"),
        *[a_trace(**EMBEDDED) for _ in range(3)],
        a_trace(**COMPLETED),
        a_trace(**{**EMBEDDED, "input_tokens": None, "outcome": "error", "status_code": 400}),
    ]
    write_segment(tmp_path / "journal", *traces)
    db = Database(tmp_path / "understudy.duckdb", StoreSettings())
    collect(db, tmp_path / "journal", PRICES)
    return task_statistics(db, "triage")


def test_requests_by_reason(found: TaskStatistics) -> None:
    assert found.traces == 8
    assert found.served["teacher"].reasons == {"other_api": 5, "no_student": 3}


def test_only_chats_count_as_new_traces(found: TaskStatistics) -> None:
    assert found.new_traces == 3


def test_embeddings_cost_their_input_tokens(found: TaskStatistics) -> None:
    chats_and_texts = 4 * (100 * 1e-5 + 10 * 1e-4)
    assert found.traffic_cost == pytest.approx(chats_and_texts + 3 * 100 * 1e-6)


def test_the_mean_cost_of_an_answer_is_that_of_chats(found: TaskStatistics) -> None:
    assert found.mean_teacher_cost == pytest.approx(100 * 1e-5 + 10 * 1e-4)
