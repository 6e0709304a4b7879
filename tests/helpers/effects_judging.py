"""The effects of the settings of scoring: who scores, by what, and what the teacher is asked for
the sake of it. The table comes last.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from distill.dataset.answers import answers_of
from distill.evaluate.ceiling import noise_stage
from distill.evaluate.evaluate import evaluate
from distill.evaluate.scoring import choose_scorer, run_scoring
from store.database.database import Database
from store.records import TermsOfService
from store.settings.config import parse_config
from tests.helpers.counting_server import counting, student_says
from tests.helpers.effects import TASK, Effect, Raw, no_progress, of_task
from tests.helpers.judging import a_run, is_judging, judging, letters, parts_with
from tests.helpers.teacher_server import LoopbackServer, completion

LETTERS = letters(30)


async def judged(raw: Raw, teacher: LoopbackServer) -> int:
    """How many of 30 letters a student answers well, each with one word in another way."""
    config = parse_config(raw)
    run = a_run(config.runs_dir / "run", **of_task(raw).model_dump())
    scorer = choose_scorer(answers_of(LETTERS), run.settings.evaluate)

    def reply_to(body: dict[str, Any]) -> dict[str, Any]:
        number = body["messages"][-1]["content"].split()[-1]
        return student_says(f"Parcel {number} is on the way")

    with Database(config.database_file, config.store) as db:
        parts = parts_with(db, teacher.base_url)
        async with (
            counting(reply_to) as (student, _),
            run_scoring(run, parts, LETTERS, scorer) as score,
        ):
            result = await evaluate(
                student,
                LETTERS,
                run_id=run.run_id,
                terms=TermsOfService(output=scorer.output, max_tokens=50, timeout_s=60),
                scorer=scorer,
                settings=run.settings.evaluate,
                progress=no_progress,
                score=score,
            )
    return sum(e.agrees for e in result)


async def answers_that_agree(raw: Raw) -> int:
    with LoopbackServer(judging(lambda one, other: True)) as teacher:
        return await judged(raw, teacher)


async def rubric_reaches_the_judge(raw: Raw) -> bool:
    """Whether the rubric about tone reaches the judge."""
    with LoopbackServer(judging(lambda one, other: True)) as teacher:
        await judged(raw, teacher)
        return all("tone" in r.json["messages"][0]["content"] for r in teacher.requests)


async def rows_asked_again(raw: Raw) -> Counter[bool]:
    """How many of 30 rows the teacher is asked again."""
    config = parse_config(raw)
    run = a_run(config.runs_dir / "run", **config.task(TASK).model_dump())
    scorer = choose_scorer(answers_of(LETTERS), run.settings.evaluate)
    with (
        LoopbackServer(lambda _: completion("It is late")) as teacher,
        Database(config.database_file, config.store) as db,
    ):
        await noise_stage(run, parts_with(db, teacher.base_url), LETTERS, scorer, no_progress)
        return Counter(map(is_judging, teacher.requests))


# ---- the table ---------------------------------------------------------------------------------

T = "task_defaults"

JUDGING: dict[str, Effect] = {
    f"{T}.evaluate.scorer": Effect(answers_that_agree, ("auto", 0), ("judge", 30)),
    f"{T}.evaluate.rubric": Effect(
        rubric_reaches_the_judge,
        (None, False),
        ("Only the tone counts.", True),
        {f"{T}.evaluate.scorer": "judge"},
    ),
    f"{T}.evaluate.teacher_recheck": Effect(
        rows_asked_again, (0, Counter()), (0.9, Counter({False: 27}))
    ),
}
