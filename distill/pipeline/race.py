"""The third stage, the race: the student kinds that fit a task, trained and compared.

They are trained in the order of their costs. Each answers the calibration rows, as the proxy would
ask it, and is scored by what the gate's own rule would expect of it: the share of requests that a
certificate would let it serve. What a cheaper kind leaves to win decides whether a dearer one is
trained at all (`race.worth`). The winner alone meets the held-out rows: they are looked at once,
whatever number of kinds there is, and the error budget is that of one student.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from distill.dataset.answers import Answers
from distill.dataset.rows import Selection
from distill.evaluate.scoring import Scorer
from distill.gate.cutoffs import Cutoff, choose_cutoffs
from distill.gate.gate import attempt_alpha
from distill.gate.groups import GroupedRows
from distill.kinds.kind import StudentKind, Trained
from distill.kinds.registry import KINDS
from distill.pipeline.evaluation import answered, with_confidence
from distill.pipeline.examples import make_examples, no_examples, save_real_examples
from distill.pipeline.training import trained_student, training_detail
from distill.run.history import RunLog
from distill.run.progress import Progress
from distill.run.run import Parts, Run, some_groups
from store.database.runs import evaluation_of
from store.errors import StudentError, TrainingError
from store.files.atomic import read_lines, write_atomically
from store.jsontext import to_json_line
from store.records import (
    Evaluation,
    Example,
    OutputKind,
    RaceEntry,
    RunState,
    TermsOfService,
)
from store.settings.tasks import GateSettings, TaskSettings

CALIBRATION = "calibration.jsonl"  # what a student answered, beside its folder
SAME_COVERAGE = 0.01  # a smaller difference does not decide


@dataclass(frozen=True, slots=True)
class Raced:
    """The result of a race."""

    winner: Trained
    entries: list[RaceEntry]  # of every registered kind, cheapest first
    calibration: list[Evaluation] | None  # the winner's; None: it has answered none yet


async def run_race(  # noqa: PLR0917  (each is a result of the stages before)
    run: Run,
    parts: Parts,
    selection: Selection,
    answers: Answers,
    scorer: Scorer,
    terms: TermsOfService,
    attempt: int,
    log: RunLog,
    progress: Progress,
) -> Raced:
    """Trains the kinds that fit, and compares them when there are several.

    Records the stages `amplified` and `trained`: synthetic examples are made for the first kind
    that learns from them. `attempt`: of the task at a certificate. A kind that cannot be trained or
    served leaves the race. At least one kind has to fit: see `no_kind_fits`. Raises TrainingError
    or StudentError, of the cheapest one, when none can be trained and served.
    """
    ended = await _ended(run, log)
    if ended is not None:
        return ended
    reasons = {kind.name: unfit(kind, answers, run.settings) for kind in KINDS}
    fitting = [kind for kind in KINDS if not reasons[kind.name]]
    race = _Race(run, parts, selection, answers, scorer, terms, attempt, log, progress)
    scored = [await race.enter(kind, alone=len(fitting) == 1) for kind in fitting]
    best = race.best
    if best is None:
        assert race.failure is not None
        raise race.failure
    if log.detail(RunState.AMPLIFIED) is None:
        await save_real_examples(run, parts, selection.rows)
        await log.reached(RunState.AMPLIFIED, 0.0, no_examples(run.settings))
    left_out = [RaceEntry(kind=n, reason=why) for n, why in reasons.items() if why]
    entries = with_winner(in_order([*scored, *left_out]), best.trained.kind)
    raced = Raced(best.trained, entries, best.calibration)
    seconds = sum(entry.seconds for entry in entries)
    detail = {**training_detail(run, best.trained), "race": [asdict(e) for e in entries]}
    await log.reached(RunState.TRAINED, seconds, detail)
    return raced


# ---- the rules: pure functions -----------------------------------------------------------------


def unfit(kind: StudentKind, answers: Answers, settings: TaskSettings) -> str:
    """Why a kind does not race for answers like these; empty when it does."""
    wanted = settings.student.kind
    if wanted not in ("auto", kind.name):
        return f"student.kind is {wanted}"
    return kind.unfit(answers, settings)


def no_kind_fits(answers: Answers, settings: TaskSettings) -> str:
    """Why no kind can learn answers like these; empty when one can. Costs nothing to know."""
    reasons = {kind.name: unfit(kind, answers, settings) for kind in KINDS}
    if not all(reasons.values()):
        return ""
    return "no student can be trained: " + "; ".join(f"{k}: {why}" for k, why in reasons.items())


def expected_coverage(cutoffs: Sequence[Cutoff]) -> float:
    """The share of requests that a certificate would let a student serve, as an expectation.

    `cutoffs`: as the gate will test them, each with its coverage and its chance on the calibration
    rows. What a further cutoff adds is won when it and all before it pass.
    """
    expected = covered = 0.0
    chance = 1.0
    for cutoff in cutoffs:
        chance = min(chance, cutoff.chance)
        expected += chance * max(0.0, cutoff.coverage - covered)
        covered = max(covered, cutoff.coverage)
    return expected


def scored(  # noqa: PLR0917  (each is a part of the rule)
    entry: RaceEntry,
    calibration: Sequence[Evaluation],
    gate: GateSettings,
    selection: Selection,
    attempt: int,
    output: OutputKind,
) -> RaceEntry:
    """The entry with what the calibration rows say, by the rule that the gate will go by.

    Of the held-out rows only the number of groups is used.
    """
    cutoffs = choose_cutoffs(
        calibration,
        gate,
        heldout=selection.groups["heldout"],
        alpha=attempt_alpha(gate, attempt),
        output=output,
    )
    grouped = GroupedRows(calibration)
    agreed = grouped.total([e.agrees for e in calibration])
    return replace(
        entry,
        coverage=round(expected_coverage(cutoffs), 4),
        agreement=round(agreed / max(len(grouped), 1), 4),
        rows=len(calibration),
        latency_ms=round(median([e.latency_ms for e in calibration] or [0.0]), 2),
    )


def not_worth(best: RaceEntry | None, worth: float) -> str:
    """Why no dearer kind is trained; empty when one is. `best`: of those that have raced."""
    if best is None or best.coverage is None:
        return ""
    left = 1 - best.coverage
    if left >= worth:
        return ""
    return (
        f"{best.kind} is expected to serve {best.coverage:.3f} of the requests; the {left:.3f} "
        f"that it leaves are less than race.worth ({worth:g})"
    )


def better(one: RaceEntry, other: RaceEntry) -> bool:
    """Whether the first of two entries wins: by coverage, agreement, latency, and memory."""
    if abs((one.coverage or 0.0) - (other.coverage or 0.0)) >= SAME_COVERAGE:
        return (one.coverage or 0.0) > (other.coverage or 0.0)
    if not one.coverage and not other.coverage and one.agreement != other.agreement:
        return (one.agreement or 0.0) > (other.agreement or 0.0)
    return (one.latency_ms, one.disk_mb) < (other.latency_ms, other.disk_mb)


def in_order(entries: Sequence[RaceEntry]) -> list[RaceEntry]:
    """The entries in the order of the registered kinds."""
    names = [kind.name for kind in KINDS]
    return sorted(entries, key=lambda entry: names.index(entry.kind))


def with_winner(entries: Sequence[RaceEntry], winner: str) -> list[RaceEntry]:
    """The entries, with the reason why one of them won."""
    rivals = [e for e in entries if e.coverage is not None and e.kind != winner]
    return [
        replace(e, won=True, reason=_why_won(e, rivals)) if e.kind == winner else e for e in entries
    ]


def _why_won(winner: RaceEntry, rivals: Sequence[RaceEntry]) -> str:
    if winner.coverage is None:
        return "the only kind that can be trained for this task here"
    own = f"expected to serve {winner.coverage:.3f} of the requests"
    if not rivals:
        return own
    others = ", ".join(f"{e.kind} {e.coverage or 0.0:.3f}" for e in rivals)
    closest = max(e.coverage or 0.0 for e in rivals)
    if winner.coverage - closest >= SAME_COVERAGE:
        return f"{own} ({others})"
    if not winner.coverage and any(e.agreement != winner.agreement for e in rivals):
        return f"none is expected to be certified; it agrees on most rows ({winner.agreement:.3f})"
    return f"{own} ({others}: no difference of {SAME_COVERAGE:g}), and it answers faster"


async def _ended(run: Run, log: RunLog) -> Raced | None:
    """The race of an earlier start of the run, if it has ended."""
    detail = log.detail(RunState.TRAINED)
    if detail is None:
        return None
    winner = await asyncio.to_thread(trained_student, run.folder, detail)
    entries = [RaceEntry(**entry) for entry in detail.get("race", [])]
    rows = winner.adapter.parent / CALIBRATION
    return Raced(winner, entries, await asyncio.to_thread(_evaluations, rows))


# ---- the race itself ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Candidate:
    trained: Trained
    entry: RaceEntry
    calibration: list[Evaluation] | None


@dataclass(slots=True)
class _Race:
    run: Run
    parts: Parts
    selection: Selection
    answers: Answers
    scorer: Scorer
    terms: TermsOfService
    attempt: int
    log: RunLog
    progress: Progress
    best: _Candidate | None = None
    failure: TrainingError | StudentError | None = None  # the first one

    async def enter(self, kind: StudentKind, *, alone: bool) -> RaceEntry:
        """Trains a kind and has it answer, unless that is not worth it. `alone`: no other fits."""
        best = self.best.entry if self.best is not None else None
        reason = not_worth(best, self.run.settings.race.worth)
        if reason:
            return RaceEntry(kind=kind.name, reason=reason)
        try:
            candidate = await self._candidate(kind, alone=alone)
        except (TrainingError, StudentError) as error:
            self.failure = self.failure or error
            return RaceEntry(kind=kind.name, reason=f"not trained: {error}")
        if best is None or better(candidate.entry, best):
            self.best = candidate
        return candidate.entry

    async def _candidate(self, kind: StudentKind, *, alone: bool) -> _Candidate:
        run, selection = self.run, self.selection
        examples: list[Example] = []
        if kind.learns_examples:
            making = make_examples(run, self.parts, selection, self.answers, self.progress)
            examples = await self.log.stage(RunState.AMPLIFIED, making)
        trained = await kind.train(
            run, selection.lessons, selection.calibration, examples, self.progress
        )
        trainings = list(trained.numbers["candidates"].values())
        entry = RaceEntry(
            kind=kind.name,
            seconds=round(sum(t["seconds"] for t in trainings), 1),
            memory_mb=max(float(t.get("peak_mb", 0)) for t in trainings),
            disk_mb=await asyncio.to_thread(_disk_mb, trained.adapter),
            base=trained.base,
        )
        if alone:
            return _Candidate(trained, entry, None)
        rows = await self._calibration(trained)
        evaluations = with_confidence(rows).evaluations.calibration
        entry = scored(
            entry, evaluations, run.settings.gate, selection, self.attempt, self.scorer.output
        )
        return _Candidate(trained, entry, rows)

    async def _calibration(self, trained: Trained) -> list[Evaluation]:
        """The candidate's calibration rows; those of an earlier start of the run, if it got there.

        The file lies beside the student, so that another training does not find it.
        """
        file = trained.adapter.parent / CALIBRATION
        earlier = await asyncio.to_thread(_evaluations, file)
        if earlier is not None:
            return earlier
        rows = some_groups(self.selection.calibration, self.run.settings.evaluate.max_rows)
        evaluations = await answered(
            self.run, self.parts, rows, trained, self.scorer, self.terms, self.progress
        )
        content = b"".join(map(to_json_line, evaluations))
        await asyncio.to_thread(write_atomically, file, content)
        return evaluations


def _evaluations(file: Path) -> list[Evaluation] | None:
    """The evaluated rows of a file; None when there is none."""
    return [evaluation_of(line) for line in read_lines(file)] if file.exists() else None


def _disk_mb(folder: Path) -> float:
    """The size of a student's files in MiB."""
    return round(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2**20, 2)
