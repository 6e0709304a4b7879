"""Tokens that were estimated: marked in the database, and counted apart in a task's statistics."""

from __future__ import annotations

from pathlib import Path

from distill.collect import collect
from store.database.database import Database
from store.database.statistics import task_statistics
from store.settings.teachers import Price
from tests.helpers.samples import a_trace, write_segment
from tests.helpers.stored import rows

PRICES = {"gpt-4.1": Price(2e-6, 8e-6)}


def test_estimated_tokens_are_marked_and_cost_what_they_are(db: Database, tmp_path: Path) -> None:
    model = {"request_model": "gpt-4.1", "task": "t"}
    counted = a_trace(**model, input_tokens=100, output_tokens=10)
    estimated = a_trace(**model, input_tokens=50, output_tokens=5, tokens_estimated=True)
    old = a_trace(**model, input_tokens=1, output_tokens=1)
    write_segment(tmp_path / "journal", counted, estimated, old)
    collect(db, tmp_path / "journal", PRICES)
    found = rows(db, "SELECT trace_id, tokens_estimated FROM teacher_traces")
    marked = {row["trace_id"]: row["tokens_estimated"] for row in found}
    assert marked == {counted.trace_id: False, estimated.trace_id: True, old.trace_id: False}
    statistics = task_statistics(db, "t")
    assert (statistics.traffic.input, statistics.traffic.output) == (151, 16)
    assert statistics.traffic.estimated == 55
    assert abs((statistics.traffic_cost or 0) - (151 * 2e-6 + 16 * 8e-6)) < 1e-9
