"""The teacher's self-consistency: its calls, its interval, and failures that stop no run."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import beta

from distill.dataset.rows import Row
from distill.evaluate.ceiling import ceiling_of, noise_stage, rows_again
from distill.evaluate.scoring import Scorer
from distill.run.run import Parts
from store.database.database import Database
from store.records import Ceiling
from store.settings.config import StoreSettings
from tests.helpers.effects import no_progress
from tests.helpers.judging import a_run, judging, letters, parts_with, same_words
from tests.helpers.stored import teacher_calls_of_run
from tests.helpers.teacher_server import (
    Answerer,
    LoopbackServer,
    Received,
    Reply,
    completion,
    error,
)

EXACT = Scorer("exact", 1.0, "text", "")
JUDGE = Scorer("judge", 1.0, "text", "")
ALL = {"evaluate": {"teacher_recheck": 1.0}}


def answering(rows: list[Row], other: int) -> Answerer:
    """A teacher that gives the same answers again, except to this many of the rows."""
    replies = {
        row.messages[-1]["content"]: completion(f"Another {n}" if n < other else row.target)
        for n, row in enumerate(rows)
    }
    return lambda request: replies[request.json["messages"][-1]["content"]]


@pytest.fixture
def parts(tmp_path: Path, teacher: LoopbackServer) -> Iterator[Parts]:
    with Database(tmp_path / "db.duckdb", StoreSettings()) as db:
        yield parts_with(db, teacher.base_url)


# ---- which rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "share", "count"),
    [
        (100, 0.0, 0),
        (100, 0.05, 20),  # at least 20…
        (12, 0.05, 12),  # …where there are so many
        (1000, 0.05, 50),
        (1001, 0.05, 51),
        (500, 1.0, 200),  # at most 200
        (0, 1.0, 0),
    ],
)
def test_how_many_rows_are_asked_again(rows: int, share: float, count: int) -> None:
    assert len(rows_again(letters(rows), share)) == count


def test_the_same_rows_are_sampled_in_any_order() -> None:
    rows = letters(300)
    drawn = rows_again(rows, 0.1)
    assert rows_again(rows[::-1], 0.1) == drawn
    assert drawn != rows[:30]


# ---- what it comes to ---------------------------------------------------------------------------


@pytest.mark.parametrize("other", [0, 3, 40])
@pytest.mark.slow
async def test_a_noisy_teacher_has_a_ceiling(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path, other: int
) -> None:
    rows = letters(40)
    teacher.answer = answering(rows, other)
    run = a_run(tmp_path / "run", **ALL)
    measured = await noise_stage(run, parts, rows, EXACT, no_progress)

    assert measured is not None
    assert (measured.n, measured.agreed, measured.share) == (40, 40 - other, 1 - other / 40)
    # Clopper and Pearson: quantiles of beta distributions
    low = beta.ppf(0.025, 40 - other, other + 1) if other < 40 else 0.0
    high = beta.ppf(0.975, 41 - other, other) if other else 1.0
    assert (measured.low, measured.high) == pytest.approx((low, high))


@pytest.mark.slow
async def test_rows_are_asked_again_with_their_own_parameters(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path
) -> None:
    rows = letters(30)
    teacher.answer = answering(rows, 0)
    run = a_run(tmp_path / "run", evaluate={"teacher_recheck": 0.05})
    reports: list[tuple[str, float, float, str]] = []
    await noise_stage(run, parts, rows, EXACT, lambda *step: reports.append(step))

    drawn = rows_again(rows, 0.05)
    bodies = sorted((r.json for r in teacher.requests), key=str)
    expected = [{"model": "gpt-big", "messages": r.messages, **r.params} for r in drawn]
    assert bodies == sorted(expected, key=str)
    assert reports == [("noise", n, 20, "") for n in range(21)]
    calls = teacher_calls_of_run(parts.store.db, run.run_id)
    assert Counter(c.purpose for c in calls) == {"noise": 20}


@pytest.mark.slow
async def test_each_row_is_asked_of_the_teacher_that_answered_it(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path
) -> None:
    rows = letters(10) + letters(30, model="gpt-small")[10:]
    teacher.answer = answering(letters(30), 0)
    run = a_run(tmp_path / "run", **ALL)
    measured = await noise_stage(run, parts, rows, EXACT, no_progress)
    assert measured is not None
    assert measured.n == 30
    assert Counter(r.json["model"] for r in teacher.requests) == {"gpt-big": 10, "gpt-small": 20}
    assert len(teacher_calls_of_run(parts.store.db, run.run_id)) == 30


@pytest.mark.slow
async def test_an_error_does_not_count_and_a_refusal_disagrees(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path
) -> None:
    rows = letters(30)
    sound = answering(rows, 0)
    refused = [r.messages[-1]["content"] for r in rows[:5]]
    no_text = [r.messages[-1]["content"] for r in rows[5:8]]

    def answer(request: Received) -> Reply:
        asked = request.json["messages"][-1]["content"]
        if asked in refused:
            return error(400, "no", code="content_filter")
        if asked in no_text:
            in_words = completion("").chunks[0].replace(b'"refusal": null', b'"refusal": "no"')
            return Reply((in_words,))
        return sound(request)

    teacher.answer = answer
    measured = await noise_stage(a_run(tmp_path / "run", **ALL), parts, rows, EXACT, no_progress)
    assert measured is not None
    assert (measured.n, measured.agreed) == (25, 22)


@pytest.mark.slow
async def test_the_ceiling_of_free_text_is_judged(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path
) -> None:
    """20 second answers are equivalent in other words, 10 are not."""
    rows = letters(30)
    other_words = [
        completion(" ".join(reversed(r.target.split())) if n < 20 else f"Another {n}")
        for n, r in enumerate(rows)
    ]
    replies = dict(zip((r.messages[-1]["content"] for r in rows), other_words, strict=True))
    teacher.answer = judging(
        same_words, lambda request: replies[request.json["messages"][-1]["content"]]
    )
    run = a_run(tmp_path / "run", **ALL)
    measured = await noise_stage(run, parts, rows, JUDGE, no_progress)
    assert measured is not None
    assert (measured.n, measured.agreed) == (30, 20)
    calls = teacher_calls_of_run(parts.store.db, run.run_id)
    assert Counter(c.purpose for c in calls) == {"noise": 30, "judge": 30}

    assert await noise_stage(run, parts, rows, JUDGE, no_progress) == measured
    assert len(teacher.requests) == 60  # neither is paid for again


# ---- what does not stop a run -------------------------------------------------------------------


async def test_share_0_makes_no_call(teacher: LoopbackServer, parts: Parts, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", evaluate={"teacher_recheck": 0})
    assert await noise_stage(run, parts, letters(50), EXACT, no_progress) is None
    assert not run.folder.exists()
    assert teacher.requests == []


@pytest.mark.slow
async def test_a_run_goes_on_without_a_ceiling_when_the_budget_is_spent_and_pays_nothing_twice(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = letters(40)
    teacher.answer = answering(rows, 4)
    run = a_run(tmp_path / "run", **ALL, amplify={"token_budget": 250, "concurrency": 2})
    assert await noise_stage(run, parts, rows, EXACT, no_progress) is None
    assert "raise amplify.token_budget or lower evaluate.teacher_recheck" in caplog.text
    assert "parcel" not in caplog.text
    paid = len(teacher.requests)
    assert 0 < paid < 20
    # each call that was made is in the ledger, the ones that were under way at the end too
    assert len(teacher_calls_of_run(parts.store.db, run.run_id)) == paid

    more = a_run(run.folder, **ALL, amplify={"token_budget": 10_000})
    measured = await noise_stage(more, parts, rows, EXACT, no_progress)
    assert measured is not None
    assert (measured.n, measured.agreed) == (40, 36)
    assert len(teacher.requests) == 40
    asked = Counter(str(r.json["messages"]) for r in teacher.requests)
    assert set(asked.values()) == {1}


@pytest.mark.slow
async def test_a_spent_budget_leaves_a_ceiling_from_20_rows_on(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = letters(60)
    teacher.answer = answering(rows, 0)
    run = a_run(tmp_path / "run", **ALL, amplify={"token_budget": 400, "concurrency": 1})
    measured = await noise_stage(run, parts, rows, EXACT, no_progress)
    assert measured is not None
    assert 20 <= measured.n == len(teacher.requests) < 60
    assert "not all rows were asked" in caplog.text


@pytest.mark.parametrize("reply", [error(401, "no"), error(400, "no")])
async def test_a_teacher_that_cannot_be_asked_does_not_fail_the_run(
    teacher: LoopbackServer,
    parts: Parts,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    reply: Reply,
) -> None:
    caplog.set_level(logging.WARNING)
    teacher.answer = lambda _: reply
    run = a_run(tmp_path / "run", **ALL)
    assert await noise_stage(run, parts, letters(30), EXACT, no_progress) is None
    assert "the teacher's agreement with itself is unknown" in caplog.text


@pytest.mark.slow
async def test_a_resumed_ceiling_reads_the_stored_answers(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path
) -> None:
    rows = letters(30)
    teacher.answer = answering(rows, 3)
    run = a_run(tmp_path / "run", **ALL)
    first = await noise_stage(run, parts, rows, EXACT, no_progress)
    with (run.folder / "noise.jsonl").open("ab") as torn:
        torn.write(b'{"input_hash": "to')
    teacher.close()
    assert await noise_stage(run, parts, rows, EXACT, no_progress) == first


# ---- the interval --------------------------------------------------------------------------------


@pytest.mark.parametrize(("agreed", "n"), [(0, 1), (1, 1), (199, 200), (200, 200)])
def test_the_interval_contains_the_share(agreed: int, n: int) -> None:
    measured = ceiling_of(agreed, n)
    values: dict[str, Any] = {"n": n, "agreed": agreed, "share": agreed / n}
    assert measured == Ceiling(**values, low=measured.low, high=measured.high)
    assert 0 <= measured.low <= measured.share <= measured.high <= 1
    assert math.isclose(measured.low, 0) == (agreed == 0)
