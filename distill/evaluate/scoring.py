"""Which scorer a task has, and how a run scores its pairs of answers with it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from distill.dataset.answers import Answers
from distill.dataset.rows import Row
from distill.evaluate.scorers.registry import SCORERS, score
from distill.evaluate.scorers.spec import Scoring
from distill.run.budget import Till, paid_client, teacher_of
from distill.run.run import Parts, Run
from store.chat.shape import Messages
from store.records import (
    OutputKind,
    ScorerName,
)
from store.settings.tasks import EvaluateSettings

log = logging.getLogger("understudy.runs")


@dataclass(frozen=True, slots=True)
class Scorer:
    """How a task's answers are compared."""

    name: ScorerName
    agree_at: float  # an answer with at least this score agrees
    output: OutputKind  # the kind of the task's answers
    reason: str

    @property
    def paid(self) -> bool:
        """Whether each pair is a call to the teacher, whose verdict may be wrong."""
        return SCORERS[self.name].paid

    def agrees(self, score: float) -> bool:
        """Whether an answer with this score counts as agreeing with the teacher's."""
        return score >= self.agree_at


def choose_scorer(answers: Answers, settings: EvaluateSettings) -> Scorer:
    """The scorer that fits the teacher's answers, or the one that is set."""
    name, reason = _fitting(answers), answers.reason
    if settings.scorer != "auto":
        name, reason = settings.scorer, f"set in evaluate.scorer; {reason}"
    bar = SCORERS[name].agree_at if settings.agree_at is None else settings.agree_at
    return Scorer(name, bar, answers.kind, reason)


def scoring(scorer: Scorer, paid: Scoring | None = None) -> Scoring:
    """How a pair of answers is scored by this scorer, whichever it is.

    `paid`: does the scoring where the scorer is a paid one. Raises ValueError when it is missing.
    """
    if scorer.paid:
        if paid is None:
            raise ValueError(f"the scorer `{scorer.name}` needs a judge")
        return paid

    async def pure(teacher: str, student: str, _: Messages) -> float:
        return score(scorer.name, teacher, student, tools=scorer.output == "tools")

    return pure


@asynccontextmanager
async def run_scoring(
    run: Run, parts: Parts, rows: Sequence[Row], scorer: Scorer
) -> AsyncIterator[Scoring]:
    """How a run scores pairs of answers. A paid scorer pays for each once, also on resuming.

    It raises BudgetSpent when amplify.token_budget is spent.
    """
    ask = SCORERS[scorer.name].ask
    if ask is None:
        yield scoring(scorer)
        return
    async with paid_client(run, parts, teacher_of(rows)) as client:
        file = run.folder / "judged.jsonl"
        faults: Counter[str] = Counter()
        judge = await asyncio.to_thread(ask, client, run.settings.evaluate, file, faults)
        till = Till(run.settings.amplify.concurrency)

        async def judged(teacher: str, student: str, messages: Messages) -> float:
            return await till.pay(lambda: judge(teacher, student, messages))

        try:
            yield scoring(scorer, judged)
        finally:
            for fault, pairs in faults.items():
                log.warning(
                    "task %s: judging was %s for %d pairs; they count as disagreements",
                    run.task,
                    fault,
                    pairs,
                )


def _fitting(answers: Answers) -> ScorerName:
    if answers.kind in ("json", "tools"):
        return "json"
    return "exact" if answers.short else "text"
