"""One run: an attempt to distil a task, from logged traces to a verdict.

    collect → race (amplify, train, compare) → evaluate → gate → promoted | rejected

Read `distil` from top to bottom. Every stage is a function of files in the run's folder and leaves
its result there. A run that was killed resumes after its last finished stage: a stage that finds
its result does its work, and pays for it, only once.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace

from distill.dataset.answers import answers_of
from distill.evaluate.scoring import choose_scorer
from distill.pipeline.evaluation import evaluate_student
from distill.pipeline.promotion import first_promotion, route_of, save_route
from distill.pipeline.protection import protection_shortage
from distill.pipeline.race import no_kind_fits, run_race
from distill.pipeline.rows import collect_rows, shortage
from distill.pipeline.terms import teacher_style, terms_of_service
from distill.pipeline.verdict import attempt_of, judge_student
from distill.run.history import RunLog
from distill.run.progress import Progress
from distill.run.run import Parts, Run
from store.records import (
    Certificate,
    Route,
    RunEvent,
    RunState,
)


async def distil(run: Run, parts: Parts, progress: Progress) -> RunEvent:
    """Runs all stages and returns the run's last event: promoted or rejected.

    Raises UnderstudyError when a stage cannot do its work; the caller then records the failure.
    """
    await asyncio.to_thread(run.folder.mkdir, mode=0o700, parents=True, exist_ok=True)
    log = await RunLog.open(parts.store, run.run_id, run.task, parts.clock)

    selection = await log.stage(RunState.COLLECTED, collect_rows(run, parts, progress))
    attempt = await attempt_of(run, parts, selection)
    too_few = shortage(selection, run.settings, attempt)
    if too_few:
        return await log.end(RunState.REJECTED, too_few.reason, supply=too_few.supply)

    answers = answers_of(selection.seen)
    unprovable = protection_shortage(selection, answers, run.settings, attempt)
    if unprovable:
        return await log.end(RunState.REJECTED, unprovable)

    unfit = no_kind_fits(answers, run.settings)
    if unfit:
        return await log.end(RunState.REJECTED, unfit)

    scorer = choose_scorer(answers, run.settings.evaluate)

    forms, style = answers.forms(parts.placeholders), await teacher_style(run, parts)
    terms = terms_of_service(run, selection, scorer, forms, style)
    raced = await run_race(run, parts, selection, answers, scorer, terms, attempt, log, progress)
    evaluated = await log.stage(
        RunState.EVALUATED,
        evaluate_student(
            run, parts, selection, raced.winner, scorer, terms, progress, raced.calibration
        ),
    )

    certificate, teacher_inputs = await judge_student(
        run, parts, selection, answers, scorer, evaluated, progress
    )
    certificate = replace(certificate, race=raced.entries)
    terms = replace(terms, cutoff=certificate.cutoff, confidence=evaluated.confidence)
    route = route_of(run, selection, scorer, certificate, terms, teacher_inputs)
    await asyncio.to_thread(save_route, run.folder, route)
    if (
        not certificate.passed
    ):  # a student that serves already continues: it has its own certificate
        return await log.end(RunState.REJECTED, certificate.reason, certificate=asdict(certificate))
    await _promote(run, parts, certificate, route)
    return await log.end(RunState.PROMOTED, certificate.reason, certificate=asdict(certificate))


async def _promote(run: Run, parts: Parts, certificate: Certificate, route: Route) -> None:
    """Appends the student's first step to the task's history."""
    known = await parts.store.promotions_of_task(run.task)
    if any(p.run_id == run.run_id for p in known):  # killed between this and the run's last event
        return
    promotion = first_promotion(certificate, route)
    if known and promotion.at <= known[0].at:  # the clock was set back
        promotion = replace(promotion, at=known[0].at + 1e-6)
    await parts.store.append_promotion(promotion)
