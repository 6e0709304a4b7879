"""One run: an attempt to distil a task, from logged traces to a verdict.

    collect → amplify → train → evaluate → gate → promoted | rejected

Read `distil` from top to bottom. Every stage is a function of files in the run's folder and leaves
its result there, so that a run which was killed goes on at its last finished stage: whoever finds
a stage's result does not do, or pay for, that stage again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.amplify import Amplified, amplify
from distill.dataset import Row, choose_rows, read_rows, write_rows
from distill.evaluate import evaluate
from distill.gate import certify, choose_cutoff, rows_needed
from distill.policy import TaskPolicy, extract_policy
from distill.progress import Progress
from distill.runlog import RunLog, StageResult
from distill.scorers import Scorer, choose_scorer
from distill.students import StudentServer
from distill.teacher_client import TeacherClient
from distill.train import TrainItem, TrainReport, train
from store import records
from store.config import TaskSettings
from store.database import Database
from store.files import append_line, read_lines, write_atomically
from store.models import (
    Certificate,
    Evaluation,
    Example,
    Promotion,
    Reason,
    Route,
    RunEvent,
    RunState,
    Split,
    TeacherCall,
    new_id,
)
from store.shape import input_chars

MOST_TRACES = 20_000  # the newest traces that one run looks at
MOST_VALIDATION_ROWS = 256  # rows of the calibration split that training validates on


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt to distil a task."""

    run_id: str
    task: str
    settings: TaskSettings
    started_at: float
    folder: Path


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run needs from outside."""

    db: Database
    clock: Callable[[], float]
    # (task's model, run, what to do with each paid call) → a client for the teacher's endpoint
    teacher: Callable[[str, Run, Callable[[TeacherCall], None]], TeacherClient]


async def distil(run: Run, parts: Parts, progress: Progress) -> RunEvent:
    """Takes a run as far as it goes and returns its last event: promoted or rejected.

    Raises UnderstudyError when a stage cannot do its work; the caller then records the failure.
    """
    await asyncio.to_thread(run.folder.mkdir, mode=0o700, parents=True, exist_ok=True)
    log = await RunLog.open(parts.db, run.run_id, run.task, parts.clock)

    rows = await log.stage(RunState.COLLECTED, _collect(run, parts, progress))
    split = {name: [r for r in rows if r.split == name] for name in _SPLITS}
    shortage = _shortage(split, run.settings)
    if shortage:
        return await log.end(RunState.REJECTED, shortage)

    examples = await log.stage(RunState.AMPLIFIED, _amplify(run, parts, rows, progress))
    trained = await log.stage(
        RunState.TRAINED, _train(run, split["train"], split["calibration"], examples, progress)
    )
    scorer = choose_scorer([r.target for r in rows], run.settings.evaluate)
    evaluations = await log.stage(
        RunState.EVALUATED, _evaluate(run, parts, split, trained, scorer, progress)
    )

    certificate = _gate(run, rows, scorer, evaluations, parts.clock())
    if not certificate.passed:  # a student that serves already goes on: it has its own certificate
        return await log.end(RunState.REJECTED, certificate.reason, certificate=asdict(certificate))
    await _promote(run, parts, rows, scorer, certificate)
    return await log.end(RunState.PROMOTED, certificate.reason, certificate=asdict(certificate))


_SPLITS: tuple[Split, ...] = ("train", "calibration", "heldout")
_EVALUATED: tuple[Split, ...] = ("calibration", "heldout")


# ---- collect -----------------------------------------------------------------------------------


async def _collect(run: Run, parts: Parts, progress: Progress) -> StageResult[list[Row]]:
    """Chooses the real rows and splits them by the hash of their input, before anything else."""
    file = run.folder / "rows.jsonl"
    if file.exists():
        return StageResult(await asyncio.to_thread(read_rows, file), {})
    progress("collect", 0, 1, "choosing traces")
    traces = await asyncio.to_thread(records.traces_of_task, parts.db, run.task, MOST_TRACES)
    selection = choose_rows(traces, run.settings.split)
    await asyncio.to_thread(write_rows, file, selection.rows)
    counts = {name: sum(r.split == name for r in selection.rows) for name in _SPLITS}
    used_until = max((float(t["start_time"]) for t in traces), default=run.started_at)
    progress("collect", 1, 1, f"{len(selection.rows)} rows")
    return StageResult(
        selection.rows,
        {
            "traces": len(traces),
            "rows": counts,
            "left_out": selection.left_out,
            "used_until": used_until,
        },
    )


def _shortage(split: dict[Split, list[Row]], settings: TaskSettings) -> str:
    """Why these rows cannot lead to a certificate, found out before anything is paid for."""
    needed = rows_needed(settings.gate)
    if len(split["heldout"]) < needed:
        return (
            f"{len(split['heldout'])} held-out rows, but a threshold of "
            f"{settings.gate.threshold:g} at confidence {settings.gate.confidence:g} needs "
            f"{needed} even without a disagreement"
        )
    if not split["train"] or not split["calibration"]:
        return "no rows in the train or the calibration split"
    return ""


# ---- amplify -----------------------------------------------------------------------------------


async def _amplify(
    run: Run, parts: Parts, rows: list[Row], progress: Progress
) -> StageResult[list[Example]]:
    """Extracts the policy, has the teacher answer new inputs, and keeps what passes the checks."""
    settings = run.settings.amplify
    train_rows = [r for r in rows if r.split == "train"]
    real = [_as_example(run, r, parts.clock()) for r in rows]
    calls_file = run.folder / "calls.jsonl"
    calls = [TeacherCall(**line) for line in await asyncio.to_thread(read_lines, calls_file)]

    def record(call: TeacherCall) -> None:
        calls.append(call)
        append_line(calls_file, asdict(call))

    made = Amplified(examples=[], stopped="amplification is off (amplify.target is 0)")
    if settings.target:
        client = parts.teacher(_commonest([r.model for r in rows]), run, record)
        client.spent += sum(c.input_tokens + c.output_tokens for c in calls)
        try:
            policy = await _policy(run, client, train_rows, progress)
            made = await amplify(
                run.folder / "amplify",
                run_id=run.run_id,
                task=run.task,
                policy=policy,
                rows=train_rows,
                forbidden={r.input_hash for r in rows},
                client=client,
                settings=settings,
                progress=progress,
            )
            await asyncio.to_thread(
                records.save_policy, parts.db, run.run_id, run.task, policy.model_dump()
            )
        finally:
            await client.close()
            await asyncio.to_thread(records.replace_teacher_calls, parts.db, run.run_id, calls)
    examples = [*real, *made.examples]
    await asyncio.to_thread(records.replace_examples, parts.db, run.run_id, examples)
    kept = sum(e.status == "kept" for e in made.examples)
    return StageResult(
        made.examples,
        {
            "kept": kept,
            "rejected": len(made.examples) - kept,
            "target": settings.target,
            "stopped": made.stopped,
            "tokens": sum(c.input_tokens + c.output_tokens for c in calls),
        },
    )


async def _policy(
    run: Run, client: TeacherClient, rows: list[Row], progress: Progress
) -> TaskPolicy:
    file = run.folder / "policy.json"
    if file.exists():
        return TaskPolicy.model_validate_json(await asyncio.to_thread(file.read_bytes))
    progress("policy", 0, 1, "reading real traces")
    policy = await extract_policy(client, rows)
    await asyncio.to_thread(write_atomically, file, policy.model_dump_json(indent=1).encode())
    progress("policy", 1, 1, "")
    return policy


def _as_example(run: Run, row: Row, now: float) -> Example:
    return Example(
        example_id=new_id(),
        task=run.task,
        run_id=run.run_id,
        origin="trace",
        split=row.split,
        status="kept",
        reason="real",
        input_messages=row.messages_json,
        target=row.target,
        input_hash=row.input_hash,
        source_trace_id=row.trace_id,
        created_at=now,
    )


# ---- train -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trained:
    """The adapter that goes on, and what it was trained from."""

    adapter: Path
    trained_on: str  # `real` or `real+synthetic`


async def _train(
    run: Run,
    real: list[Row],
    calibration: list[Row],
    examples: list[Example],
    progress: Progress,
) -> StageResult[Trained]:
    """Trains on real rows alone and on real and synthetic ones; the better student goes on.

    Better on the calibration split, that is: synthetic examples must earn their place.
    """
    settings = run.settings.train
    real_items = [TrainItem(r.messages, r.target) for r in real]
    synthetic = [TrainItem.from_example(e) for e in examples if e.status == "kept"]
    valid = [TrainItem(r.messages, r.target) for r in _some(calibration, MOST_VALIDATION_ROWS)]

    candidates: dict[str, list[TrainItem]] = {}
    if synthetic:
        candidates["real+synthetic"] = [*real_items, *synthetic]
    if settings.compare or not synthetic:
        candidates["real"] = real_items

    slots = asyncio.Semaphore(settings.parallel)
    tellers = _side_by_side(progress, list(candidates))

    async def one(name: str, items: list[TrainItem]) -> tuple[str, TrainReport]:
        async with slots:
            report = await train(
                run.folder / f"train-{name.replace('+', '-')}",
                train=items,
                valid=valid,
                settings=settings,
                progress=tellers[name],
            )
            return name, report

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(name, items)) for name, items in candidates.items()]
    reports = dict(task.result() for task in tasks)
    best = max(reports, key=lambda n: (reports[n].valid_agreement, -reports[n].best_val_loss))
    return StageResult(
        Trained(reports[best].adapter, best),
        {
            "chosen": best,
            "base": settings.base,
            "adapter": str(reports[best].adapter.relative_to(run.folder)),
            "candidates": {
                name: {"rows": len(candidates[name]), **report.numbers()}
                for name, report in reports.items()
            },
        },
    )


def _side_by_side(progress: Progress, names: list[str]) -> dict[str, Progress]:
    """One progress callback a candidate, added up to one bar for the training stage."""
    standing: dict[str, tuple[float, float]] = {}

    def teller(name: str) -> Progress:
        def tell(stage: str, done: float, total: float, note: str) -> None:
            standing[name] = (done, total)
            all_done = sum(d for d, _ in standing.values())
            all_total = sum(t for _, t in standing.values()) * len(names) / len(standing)
            progress(stage, all_done, all_total, f"{name}: {note}")

        return tell

    return {name: teller(name) for name in names}


# ---- evaluate and gate -------------------------------------------------------------------------


async def _evaluate(  # noqa: PLR0917  (each is a result of the stages before)
    run: Run,
    parts: Parts,
    split: dict[Split, list[Row]],
    trained: Trained,
    scorer: Scorer,
    progress: Progress,
) -> StageResult[list[Evaluation]]:
    """Asks the student for every calibration and held-out row as the proxy would ask it."""
    file = run.folder / "evaluations.jsonl"
    if file.exists():
        lines = await asyncio.to_thread(read_lines, file)
        return StageResult([Evaluation(**line) for line in lines], {})
    settings = run.settings
    rows = [row for name in _EVALUATED for row in _some(split[name], settings.evaluate.max_rows)]
    progress("evaluate", 0, len(rows), "starting the student")
    server = StudentServer(
        settings.train.base, trained.adapter, settings.student, run.folder / "evaluate"
    )
    async with server:
        evaluations = await evaluate(
            server.base_url,
            rows,
            run_id=run.run_id,
            scorer=scorer,
            output=scorer.output,
            max_tokens=student_tokens(rows),
            settings=settings.evaluate,
            timeout_s=settings.student.request_timeout_s,
            progress=progress,
        )
    content = b"".join(records.as_line(e) for e in evaluations)
    await asyncio.to_thread(records.replace_evaluations, parts.db, run.run_id, evaluations)
    await asyncio.to_thread(write_atomically, file, content)
    counts: dict[str, Any] = {
        name: {
            "rows": sum(e.split == name for e in evaluations),
            "agreed": sum(e.agrees for e in evaluations if e.split == name),
        }
        for name in _EVALUATED
    }
    return StageResult(
        evaluations,
        {"scorer": asdict(scorer), "trained_on": trained.trained_on, **counts},
    )


def _gate(
    run: Run, rows: list[Row], scorer: Scorer, evaluations: list[Evaluation], now: float
) -> Certificate:
    """Chooses the cutoff on the calibration split and certifies it on the held-out split."""
    cutoff = choose_cutoff([e for e in evaluations if e.split == "calibration"], run.settings.gate)
    return certify(
        [e for e in evaluations if e.split == "heldout"],
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


def student_tokens(rows: list[Row]) -> int:
    """The student's token limit: well above the longest target, as a token is a byte or more."""
    longest = max(len(r.target.encode()) for r in rows)
    return min(4096, 32 + longest + longest // 4)


def _some(rows: list[Row], most: int) -> list[Row]:
    """At most `most` rows, drawn by their hash: the same ones each time, whatever their order."""
    return sorted(rows, key=lambda r: r.input_hash)[:most]


def _commonest(values: list[str]) -> str:
    return max(sorted(set(values)), key=values.count)
