"""One run: an attempt to distil a task, from logged traces to a verdict.

    collect → amplify → train → evaluate → gate → promoted | rejected

Read `distil` from top to bottom. Every stage is a function of files in the run's folder and leaves
its result there, so that a run which was killed goes on at its last finished stage: whoever finds
a stage's result does not do, or pay for, that stage again.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from distill.dataset import Row
from distill.gate import certify, choose_cutoff
from distill.progress import Progress
from distill.run import SPLITS, Parts, Run, student_tokens
from distill.runlog import RunLog
from distill.scorers import Scorer, choose_scorer
from distill.stage_evaluation import evaluate_student
from distill.stage_examples import make_examples
from distill.stage_rows import collect_rows, shortage
from distill.stage_training import train_best
from store import records
from store.models import Reason, RunEvent, RunState, new_id
from store.shape import input_chars
from store.verdicts import Certificate, Evaluation, Promotion, Route


async def distil(run: Run, parts: Parts, progress: Progress) -> RunEvent:
    """Takes a run as far as it goes and returns its last event: promoted or rejected.

    Raises UnderstudyError when a stage cannot do its work; the caller then records the failure.
    """
    await asyncio.to_thread(run.folder.mkdir, mode=0o700, parents=True, exist_ok=True)
    log = await RunLog.open(parts.db, run.run_id, run.task, parts.clock)

    rows = await log.stage(RunState.COLLECTED, collect_rows(run, parts, progress))
    split = {name: [r for r in rows if r.split == name] for name in SPLITS}
    too_few = shortage(split, run.settings)
    if too_few:
        return await log.end(RunState.REJECTED, too_few)

    examples = await log.stage(RunState.AMPLIFIED, make_examples(run, parts, rows, progress))
    trained = await log.stage(
        RunState.TRAINED, train_best(run, split["train"], split["calibration"], examples, progress)
    )
    scorer = choose_scorer([r.target for r in rows], run.settings.evaluate)
    evaluations = await log.stage(
        RunState.EVALUATED, evaluate_student(run, parts, split, trained, scorer, progress)
    )

    certificate = _gate(run, rows, scorer, evaluations, parts.clock())
    if not certificate.passed:  # a student that serves already goes on: it has its own certificate
        return await log.end(RunState.REJECTED, certificate.reason, certificate=asdict(certificate))
    await _promote(run, parts, rows, scorer, certificate)
    return await log.end(RunState.PROMOTED, certificate.reason, certificate=asdict(certificate))


def _gate(
    run: Run, rows: list[Row], scorer: Scorer, evaluations: list[Evaluation], now: float
) -> Certificate:
    """Chooses the cutoff on the calibration split and certifies it on the held-out split."""
    calibration = [e for e in evaluations if e.split == "calibration"]
    heldout = [e for e in evaluations if e.split == "heldout"]
    cutoff = choose_cutoff(calibration, run.settings.gate, heldout=len(heldout))
    return certify(
        heldout,
        cutoff,
        run.settings.gate,
        task=run.task,
        run_id=run.run_id,
        scorer=scorer.name,
        fingerprints=sorted({r.fingerprint for r in rows}),
        now=now,
    )


async def _promote(
    run: Run, parts: Parts, rows: list[Row], scorer: Scorer, certificate: Certificate
) -> None:
    """Appends the promotion, with the route that follows from it, to the task's history."""
    known = await asyncio.to_thread(records.promotions_of_task, parts.db, run.task)
    if any(p.run_id == run.run_id for p in known):  # killed between this and the run's last event
        return
    route = Route(
        task=run.task,
        target="student",
        reason=Reason.CERTIFIED,
        student_id=run.run_id,
        fingerprints=certificate.fingerprints,
        cutoff=certificate.cutoff,
        output=scorer.output,
        max_input_chars=max(input_chars(r.messages) for r in rows),
        max_tokens=student_tokens(rows),
        timeout_s=run.settings.student.request_timeout_s,
        certificate_id=certificate.certificate_id,
        at=certificate.at,
    )
    promotion = Promotion(
        promotion_id=new_id(),
        task=run.task,
        target="student",
        state="live",
        reason=certificate.reason,
        actor="gate",
        at=certificate.at,
        run_id=run.run_id,
        certificate=certificate,
        route=route,
    )
    await asyncio.to_thread(records.append_promotion, parts.db, promotion)
