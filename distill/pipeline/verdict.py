"""The last stage: the gate's certificate for a run's student, with its ceiling and labels."""

from __future__ import annotations

from dataclasses import replace

from distill.dataset.answers import Answers
from distill.dataset.rows import Selection
from distill.evaluate.ceiling import noise_stage
from distill.evaluate.scoring import Scorer
from distill.gate.cutoffs import choose_cutoffs
from distill.gate.frequent import FrequentChecks
from distill.gate.gate import attempt_alpha, attempt_number, certify
from distill.gate.groups import GroupedRows
from distill.monitor.feedback import judged_pairs
from distill.pipeline.evaluation import Evaluated
from distill.pipeline.protection import labels_of_rows
from distill.run.progress import Progress
from distill.run.run import Parts, Run
from store.records import Certificate

MIXED = (
    "the held-out groups are mixed in time with those that were learned from: it speaks of traffic "
    "as it was"
)
MIN_PAIRS = 50  # with fewer the correction is larger than the errors of a usable judge


async def attempt_of(run: Run, parts: Parts, selection: Selection) -> int:
    """Which attempt of the task this is under the fingerprints of these rows (1-based)."""
    earlier = await parts.store.certificates_of_task(run.task)
    return attempt_number([c for c in earlier if c.run_id != run.run_id], selection.fingerprints)


async def judge_student(  # noqa: PLR0917  (each is a result of the stages before)
    run: Run,
    parts: Parts,
    selection: Selection,
    answers: Answers,
    scorer: Scorer,
    evaluated: Evaluated,
    progress: Progress,
) -> tuple[Certificate, list[str]]:
    """Fixes the cutoffs on the calibration split and certifies one on the held-out split.

    Returns the certificate, and the hashes of the frequent inputs that the teacher is to answer.
    """
    evaluations = evaluated.evaluations
    ceiling = await noise_stage(run, parts, selection.heldout, scorer, progress)
    labelled = await _labelled(run, parts) if scorer.paid else None
    heldout = evaluations.heldout
    gate, attempt = run.settings.gate, await attempt_of(run, parts, selection)
    cutoffs = choose_cutoffs(
        evaluations.calibration,
        gate,
        heldout=len(GroupedRows(heldout)),
        alpha=attempt_alpha(gate, attempt),
        output=scorer.output,
    )
    frequent = FrequentChecks(
        evaluated.checks,
        requests=selection.requests,
        heldout=len(GroupedRows(heldout)),
        threshold=gate.threshold,
    )
    certificate = certify(
        heldout,
        cutoffs,
        gate,
        attempt=attempt,
        output=scorer.output,
        task=run.task,
        run_id=run.run_id,
        scorer=scorer.name,
        fingerprints=selection.fingerprints,
        now=parts.clock(),
        fields=answers.fields,
        known=labels_of_rows(selection.rows, answers, gate),
        ceiling=ceiling,
        labelled=labelled,
        frequent=frequent,
    )
    reason = certificate.reason
    if selection.mixed_in_time:
        reason += f"; {MIXED}"
    certificate = replace(
        certificate,
        heldout_since=selection.heldout_since,
        mixed_in_time=selection.mixed_in_time,
        reason=reason,
    )
    return certificate, frequent.teacher_inputs


async def _labelled(run: Run, parts: Parts) -> list[tuple[bool, bool]]:
    """(judge, people) on the same answers; none when there are too few for a correction."""
    pairs = await parts.store.run(judged_pairs, run.task)
    return pairs if len(pairs) >= MIN_PAIRS else []
