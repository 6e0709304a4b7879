"""The second stage: the policy, and the synthetic examples that it describes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from distill.amplify.amplify import Amplified, amplify
from distill.amplify.policy import TaskPolicy, extract_policy, parents_of_policy
from distill.dataset.answers import Answers
from distill.dataset.rows import Row, Selection
from distill.run.budget import paid_calls, paid_client, teacher_of
from distill.run.history import StageResult
from distill.run.progress import Progress
from distill.run.run import Parts, Run
from distill.teacher.client import TeacherClient
from store.chat.shape import input_hash
from store.files.atomic import write_atomically
from store.ids import new_id
from store.jsontext import JsonObject
from store.records import Example
from store.settings.tasks import TaskSettings


async def make_examples(
    run: Run, parts: Parts, selection: Selection, answers: Answers, progress: Progress
) -> StageResult[list[Example]]:
    """Extracts the policy, has the teacher answer new inputs, and keeps what passes the checks."""
    settings, rows, train_rows = run.settings.amplify, selection.rows, selection.train
    real = [_as_example(run, r, parts.clock()) for r in rows]
    made = Amplified(examples=[], stopped="amplification is off (amplify.target is 0)")
    if settings.target:
        async with paid_client(run, parts, teacher_of(rows)) as client:
            policy = await _policy(run, client, train_rows, progress)
            made = await amplify(
                run.folder / "amplify",
                run_id=run.run_id,
                task=run.task,
                policy=policy,
                answers=answers,
                rows=train_rows,
                # without the values in the template's holes, which forbids more
                forbidden={input_hash(r.messages) for r in rows},
                client=client,
                settings=settings,
                progress=progress,
            )
            await parts.store.save_policy(
                run.run_id,
                run.task,
                policy.model_dump(),
                parents_of_policy(train_rows),
            )
    examples = [*real, *made.examples]
    await parts.store.replace_examples(run.run_id, examples)
    calls = await asyncio.to_thread(paid_calls, run.folder)
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


async def save_real_examples(run: Run, parts: Parts, rows: Sequence[Row]) -> None:
    """Stores the rows that a run learns from and is judged on, which forgetting goes by."""
    real = [_as_example(run, row, parts.clock()) for row in rows]
    await parts.store.replace_examples(run.run_id, real)


def no_examples(settings: TaskSettings) -> JsonObject:
    """What the history keeps of this stage when no student was trained that learns from it."""
    return {
        "kept": 0,
        "rejected": 0,
        "target": settings.amplify.target,
        "stopped": "no student was trained that learns from synthetic examples",
        "tokens": 0,
    }


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
        origin=row.origin,
        split=row.split,
        status="kept",
        reason="real",
        input_messages=row.messages_json,
        target=row.target,
        input_hash=row.input_hash,
        source_trace_id=row.trace_id,
        created_at=now,
    )
