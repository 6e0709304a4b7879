"""The campaign itself: a short one, and that it notices what it looks for."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from store.database.database import Database
from store.files.journal import JournalWriter
from store.jsontext import to_json
from store.records import Trace
from store.settings.config import JournalSettings, StoreSettings
from tests.campaign import invariants, wire
from tests.campaign.faults import FAULTS, plan
from tests.campaign.oracle import Attempt
from tests.campaign.run import episode
from tests.helpers.samples import a_trace, write_segment


def test_a_seed_has_one_plan() -> None:
    first, again, other = plan("1", 100), plan("1", 100), plan("2", 100)
    assert first == again != other
    assert [one.draw.random() for one in first] == [one.draw.random() for one in again]
    assert len({one.fault.name for seed in range(20) for one in plan(str(seed), 100)}) == len(
        FAULTS
    )


def test_faults_that_lose_lines_together_exclude_each_other() -> None:
    """While the disk is full, lines are in the memory of the workers alone."""
    full = [one for name, one in FAULTS.items() if "the disk is full" in name or "grow" in name]
    ends = [one for name, one in FAULTS.items() if "a worker is killed" in name or "serve" in name]
    assert full
    assert ends
    for one in full:
        if one.name != "the control plane's files may not grow":
            assert all(one.touches & other.touches for other in ends)


# ---- what is found in a store ------------------------------------------------------------------


def trace_of(number: str, **changes: Any) -> Trace:
    return a_trace(input_messages=to_json(wire.messages(number)).decode(), **changes)


def scene_of(folder: Path, stored: list[Trace], seen: list[Trace]) -> Any:
    """As much of a scene as the checks of the store look at."""
    from distill.collect import collect  # noqa: PLC0415 - slow to import

    data_dir = folder / "data"
    write_segment(data_dir / "journal", *stored)
    with Database(data_dir / "understudy.duckdb", StoreSettings()) as db:
        collect(db, data_dir / "journal", {})
    attempts = [
        Attempt(
            *(f"{place:06d}", None, False, 0.0),
            status=200,
            headers={"x-understudy-trace": trace.trace_id, "x-understudy-route": "teacher"},
        )
        for place, trace in enumerate(seen)
    ]
    found: list[str] = []
    return SimpleNamespace(
        data_dir=data_dir,
        load=SimpleNamespace(attempts=attempts, feedback=[]),
        since=lambda at: at,
        report=found.append,
        wrong=found,
    )


@pytest.mark.slow
def test_a_lost_trace_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    traces = [trace_of(f"{place:06d}") for place in range(4)]
    scene = scene_of(tmp_path, traces[:2], traces)
    journal = tmp_path / "data" / "journal"
    left = JournalWriter(journal, JournalSettings())
    left.append(traces[2])
    left.close()

    invariants.check_store(scene)

    [found] = scene.wrong
    assert found.startswith("2 answered requests are not in the store")
    assert "000002" in found
    assert "still in the journal" in found
    assert "000003" in found


@pytest.mark.slow
def test_a_request_that_is_logged_twice_is_noticed(tmp_path: Path) -> None:
    first = trace_of("000000")
    scene = scene_of(tmp_path, [first, trace_of("000000")], [first])
    invariants.check_store(scene)
    [found] = scene.wrong
    assert "logged more often than they were asked: 000000" in found


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"served_by": "student"}, {"status_code": 500}, {"input_messages": "[]"}]
)
def test_a_trace_that_says_something_else_is_noticed(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    trace = trace_of("000000") if "input_messages" not in changes else a_trace(**changes)
    if "input_messages" not in changes:
        trace = trace_of("000000", **changes)
    scene = scene_of(tmp_path, [trace], [trace])
    invariants.check_store(scene)
    [found] = scene.wrong
    assert "say something else than the client saw" in found


@pytest.mark.slow
def test_a_whole_store_has_nothing_to_be_noticed(tmp_path: Path) -> None:
    traces = [trace_of(f"{place:06d}") for place in range(3)]
    scene = scene_of(tmp_path, traces, traces)
    assert invariants.check_store(scene) == {"traces": 3, "answered": 3, "feedback": 0}
    assert scene.wrong == []


# ---- a short one -------------------------------------------------------------------------------

SHORT_SEED, SHORT_FAULTS = 7, 12


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_few_faults_cost_no_answer_and_no_trace(tmp_path: Path) -> None:
    """`make campaign` does a thousand."""
    outcome = await episode(
        SHORT_SEED, SHORT_FAULTS, deadline=time.monotonic() + 240, folder=tmp_path, per_second=15
    )
    assert outcome.wrong == []
    assert outcome.faults.total() == SHORT_FAULTS
    assert outcome.verdicts["teacher"] > 0
    assert outcome.verdicts["student"] > 0
