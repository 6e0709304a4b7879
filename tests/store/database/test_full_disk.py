"""A disk that takes no more: everybody is answered, and `journal.backlog_mb` bounds memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from distill.collect import collect
from store.database.database import Database
from store.database.traces import teacher_answers
from store.settings.config import StoreSettings
from tests.helpers.api_teacher import in_few_words
from tests.helpers.measured import GOOD, PATH, Measured, running
from tests.helpers.serving import wait_until
from tests.helpers.teacher_server import LoopbackServer

TAG = {"X-Understudy-Task": "triage"}


def ask_often(measured: Measured, count: int, size: int) -> list[str]:
    """The traces of so many answers, to questions of so many bytes."""
    body = {**GOOD, "messages": [{"role": "user", "content": "x" * size}]}
    with httpx.Client(timeout=60, headers=TAG) as http:
        answers = [http.post(f"{measured.proxy.url}{PATH}", json=body) for _ in range(count)]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.headers["x-understudy-trace"] for answer in answers]


def stored(measured: Measured, tmp_path: Path) -> Counter[str]:
    """The traces in the store, once the journal of the stopped proxy is collected."""
    measured.proxy.process.terminate()
    measured.proxy.process.wait(60)
    with Database(tmp_path / "understudy.duckdb", StoreSettings()) as db:
        assert collect(db, measured.proxy.config.journal_dir, {}).damaged == 0
        return Counter(r.trace_id for r in teacher_answers(db, "triage", 10**6))


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[Measured]:
    """A proxy with a small backlog, and one segment of the journal for the whole test."""
    journal = {"backlog_mb": 4, "segment_seconds": 600}
    with (
        LoopbackServer(in_few_words) as teacher,
        running(teacher.base_url, tmp_path, journal=journal) as found,
    ):
        yield found


@pytest.mark.slow
def test_a_full_disk_costs_no_answer_and_no_trace(measured: Measured, tmp_path: Path) -> None:
    told = ask_often(measured, 3, 20_000)
    with measured.disk_that_takes(100_000):  # in the middle of a line
        told += ask_often(measured, 100, 20_000)
        health = measured.health()
        assert health["status"] == "degraded"
        assert health["journal"]["error"] and not health["journal"]["ok"]
        waiting = health["journal"]["backlog"]
        assert 90 < waiting < 103
        assert measured.metrics()["understudy_journal_backlog_lines"] == waiting
        assert measured.grown < 40
    wait_until(lambda: measured.health()["status"] == "ok")
    told += ask_often(measured, 3, 20_000)
    found = measured.health()["journal"]
    assert (found["backlog"], found["lost"], found["error"]) == (0, 0, None)
    assert stored(measured, tmp_path) == Counter(told)


@pytest.mark.slow
def test_a_disk_that_stays_full_costs_the_oldest_traces(measured: Measured, tmp_path: Path) -> None:
    with measured.disk_that_takes(0):
        told = ask_often(measured, 400, 40_000)  # 16 MB
        health = measured.health()["journal"]
        assert health["lost"] > 250
        assert health["lost"] + health["backlog"] == 400
        assert measured.metrics()["understudy_journal_lost_lines_total"] == health["lost"]
        assert measured.grown < 40
    wait_until(lambda: not measured.health()["journal"]["backlog"])
    assert measured.health()["status"] == "degraded"  # what is lost stays lost
    assert stored(measured, tmp_path) == Counter(told[health["lost"] :])
