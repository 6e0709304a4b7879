"""Evaluations that a judge scores: the calls of a run, and that none is paid twice."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from distill.dataset.answers import answers_of
from distill.dataset.rows import Row, Selection
from distill.evaluate.evaluate import evaluate
from distill.evaluate.scoring import Scorer, choose_scorer, run_scoring
from distill.kinds.kind import Trained
from distill.pipeline.evaluation import evaluate_student
from distill.run.run import Parts, Run
from store.database.database import Database
from store.errors import BudgetSpent, TeacherError
from store.files.atomic import read_lines
from store.records import Evaluation, TermsOfService
from store.settings.config import StoreSettings
from tests.helpers.counting_server import counting, student_says
from tests.helpers.effects import no_progress
from tests.helpers.judging import (
    a_run,
    is_judging,
    judging,
    letters,
    parts_with,
    same_words,
    shown,
    verdict,
)
from tests.helpers.stored import teacher_calls_of_run
from tests.helpers.student_samples import BASE, rows
from tests.helpers.teacher_server import LoopbackServer, Received, Reply, error

JUDGE = Scorer("judge", 1.0, "text", "")


@pytest.fixture
def parts(tmp_path: Path, teacher: LoopbackServer) -> Iterator[Parts]:
    with Database(tmp_path / "db.duckdb", StoreSettings()) as db:
        yield parts_with(db, teacher.base_url)


def reply_to(body: dict[str, Any]) -> dict[str, Any]:
    """A student that uses other words, and a wrong number in every fifth letter."""
    number = int(body["messages"][-1]["content"].split()[-1])
    return student_says(f"on its way is Parcel {number if number % 5 else 999}")


async def evaluated(run: Run, parts: Parts, rows_asked: list[Row]) -> list[Evaluation]:
    async with (
        counting(reply_to) as (student, _),
        run_scoring(run, parts, rows_asked, JUDGE) as score,
    ):
        return await evaluate(
            student,
            rows_asked,
            run_id=run.run_id,
            terms=TermsOfService(output="text", max_tokens=50, timeout_s=30),
            scorer=JUDGE,
            settings=run.settings.evaluate,
            progress=no_progress,
            score=score,
        )


def pair_of(request: Received) -> frozenset[str]:
    outcome = shown(request.json["messages"])
    return frozenset((outcome["answer A"], outcome["answer B"]))


@pytest.mark.slow
async def test_a_run_is_scored_by_its_judge_and_the_calls_are_in_the_store(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path
) -> None:
    teacher.answer = judging(same_words)
    run, rows_asked = (
        a_run(tmp_path / "run", evaluate={"rubric": "The number counts."}),
        letters(30),
    )
    outcome = await evaluated(run, parts, rows_asked)

    assert [e.agrees for e in outcome] == [n % 5 != 0 for n in range(30)]
    assert {(e.scorer, e.score, e.agrees) for e in outcome} == {
        ("judge", 1.0, True),
        ("judge", 0.0, False),
    }
    assert len(teacher.requests) == 30
    assert all("The number counts." in r.json["messages"][0]["content"] for r in teacher.requests)
    assert {r.json["model"] for r in teacher.requests} == {"gpt-big"}
    calls = teacher_calls_of_run(parts.store.db, run.run_id)
    assert Counter(c.purpose for c in calls) == {"judge": 30}

    assert [replace(e, latency_ms=0) for e in await evaluated(run, parts, rows_asked)] == [
        replace(e, latency_ms=0) for e in outcome
    ]
    assert len(teacher.requests) == 30  # the student was asked again, the judge was not


@pytest.mark.slow
async def test_a_refusing_judge_is_logged_and_counts_against_the_student(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    teacher.answer = lambda _: error(400, "no tools", code="unsupported")
    outcome = await evaluated(a_run(tmp_path / "run"), parts, letters(6))
    assert [e.agrees for e in outcome] == [False] * 6
    assert "judging was refused for 6 pairs; they count as disagreements" in caplog.text
    assert "Parcel" not in caplog.text


@pytest.mark.slow
async def test_a_spent_budget_names_its_setting_and_loses_no_verdict(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path
) -> None:
    dear = judging(same_words, tokens=(480, 20))
    teacher.answer = lambda request: dear(request).slow(0.02)
    rows_asked = letters(40)
    run = a_run(tmp_path / "run", amplify={"token_budget": 6000})
    with pytest.raises(
        BudgetSpent, match=r"for judge may take .* amplify.token_budget or lower evaluate.max_rows"
    ):
        await evaluated(run, parts, rows_asked)
    paid = len(teacher.requests)
    assert 10 <= paid <= 11  # 692 tokens are set aside for each, before it takes 500
    # those that were under way when another was not allowed are paid for, kept and recorded too
    assert len(read_lines(run.folder / "judged.jsonl")) == paid
    assert len(teacher_calls_of_run(parts.store.db, run.run_id)) == paid

    more = replace(run, settings=a_run(run.folder, amplify={"token_budget": 30_000}).settings)
    outcome = await evaluated(more, parts, rows_asked)
    assert sum(e.agrees for e in outcome) == 32
    assert Counter(map(pair_of, teacher.requests)).most_common(1)[0][1] == 1
    assert len(teacher_calls_of_run(parts.store.db, run.run_id)) == len(teacher.requests) == 40


@pytest.mark.slow
async def test_earlier_calls_of_the_run_count_against_the_budget(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path
) -> None:
    teacher.answer = judging(same_words)
    run = a_run(tmp_path / "run", amplify={"token_budget": 2000})
    await evaluated(run, parts, letters(8))
    lines = read_lines(run.folder / "calls.jsonl")
    (run.folder / "calls.jsonl").write_bytes(
        b"".join(orjson.dumps({**line, "input_tokens": 1000}) + b"\n" for line in lines)
    )
    with pytest.raises(BudgetSpent, match="8024 of 2000 tokens are spent"):
        await evaluated(run, parts, letters(9))
    assert len(teacher.requests) == 8


@pytest.mark.slow
async def test_a_teacher_that_becomes_unreachable_fails_the_run_with_one_reason(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path
) -> None:
    teacher.answer = lambda _: error(401, "no", code="invalid_api_key")
    with pytest.raises(TeacherError, match=r"judge with status 401 \(invalid_api_key\)"):
        await evaluated(a_run(tmp_path / "run"), parts, letters(20))
    assert len(teacher.requests) <= 4  # none begins after the first failure


@pytest.mark.slow
async def test_a_stopped_evaluation_resumes_without_paying_twice(
    teacher: LoopbackServer, parts: Parts, tmp_path: Path
) -> None:
    """Stopped after some verdicts, while the teacher delays the next ones."""
    answered: Counter[frozenset[str]] = Counter()
    sound = judging(same_words)

    def until_held(request: Received) -> Reply:
        if answered.total() == 11:
            return sound(request).slow(60)
        answered[pair_of(request)] += 1
        return sound(request)

    teacher.answer = until_held
    run, rows_asked = a_run(tmp_path / "run"), letters(30)
    working = asyncio.create_task(evaluated(run, parts, rows_asked))
    while len(read_lines(run.folder / "judged.jsonl")) < 11:  # noqa: ASYNC110 - a file tells of it
        await asyncio.sleep(0.01)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)

    def freely(request: Received) -> Reply:
        answered[pair_of(request)] += 1
        return sound(request)

    teacher.answer = freely
    outcome = await evaluated(run, parts, rows_asked)
    assert sum(e.agrees for e in outcome) == 24
    assert len(answered) == 30
    assert set(answered.values()) == {1}


@pytest.mark.slow
async def test_no_more_judge_calls_at_once_than_set(parts: Parts, tmp_path: Path) -> None:
    whole = orjson.loads(verdict(True).chunks[0])
    async with counting(lambda _: whole) as (url, most):
        run = a_run(tmp_path / "run", amplify={"concurrency": 3})
        await evaluated(run, parts_with(parts.store.db, f"{url}/v1"), letters(12))
        assert most() == 3


@pytest.mark.slow
async def test_the_stage_has_a_real_student_judged(
    teacher: LoopbackServer, parts: Parts, sample_adapter: Path, tmp_path: Path
) -> None:
    """The teacher lays its JSON out in another way than the student."""
    rows_asked = [replace(r, target=r.target.replace(": ", ":")) for r in rows(30, seed=9)]
    teacher.answer = judging(lambda one, other: orjson.loads(one) == orjson.loads(other))
    run = a_run(tmp_path / "run", evaluate={"scorer": "judge"}, train={"base": BASE})
    scorer = choose_scorer(answers_of(rows_asked), run.settings.evaluate)
    trained = Trained(sample_adapter, "real", base=BASE)
    terms = TermsOfService(output=scorer.output, max_tokens=100, timeout_s=60)
    result = await evaluate_student(
        run, parts, Selection(rows_asked), trained, scorer, terms, no_progress
    )

    usable = [e for e in result.value.evaluations.rows if e.fault is None]
    assert len(usable) > 20
    assert sum(is_judging(r) for r in teacher.requests) == len(usable)
    for e in usable:
        assert e.student_output is not None
        right = orjson.loads(e.student_output) == orjson.loads(e.teacher_output)
        assert (e.scorer, e.score, e.agrees) == ("judge", float(right), right)
    assert len(teacher_calls_of_run(parts.store.db, run.run_id)) == len(usable)
