"""Asks a student for rows whose answer is known, as the proxy would ask it, and scores it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from distill.dataset import Row
from distill.progress import Progress
from distill.scorers import Scorer, score
from store.models import OutputKind, Reason
from store.student_wire import StudentAnswer, fault_of, read_student_answer, student_body
from store.task_settings import EvaluateSettings
from store.verdicts import Evaluation

PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to a student, and what came of it."""

    answer: StudentAnswer | None
    fault: Reason | None  # why the answer may not be served
    latency_ms: float


async def evaluate(
    base_url: str,
    rows: Sequence[Row],
    *,
    run_id: str,
    scorer: Scorer,
    output: OutputKind,
    max_tokens: int,
    settings: EvaluateSettings,
    timeout_s: float,
    progress: Progress,
) -> list[Evaluation]:
    """One evaluation a row, in the order of the rows. Never raises for a student's faults.

    `base_url`: of the student's server, without /v1. `timeout_s`: for each answer, as for the
    proxy. What the student cannot answer within it, or answers unservably, is a fault of that row.
    """
    slots = asyncio.Semaphore(settings.concurrency)
    done = agreed = 0

    async def one(session: aiohttp.ClientSession, row: Row) -> Evaluation:
        nonlocal done, agreed
        async with slots:
            asked = await ask(session, row, output=output, max_tokens=max_tokens)
        evaluation = _judged(row, asked, run_id, scorer)
        done, agreed = done + 1, agreed + evaluation.agrees
        progress("evaluate", done, len(rows), f"{agreed} of {done} agree")
        return evaluation

    async with (
        aiohttp.ClientSession(base_url, timeout=aiohttp.ClientTimeout(timeout_s)) as session,
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(one(session, row)) for row in rows]
    return [task.result() for task in tasks]


async def ask(
    session: aiohttp.ClientSession, row: Row, *, output: OutputKind, max_tokens: int
) -> Asked:
    """Asks a student for one row. The session holds its address and the time limit.

    The row's own limit and stops hold, as a client's do in the proxy.
    """
    limits = (row.params.get("max_completion_tokens"), row.params.get("max_tokens"))
    longest = min([max_tokens, *(limit for limit in limits if limit)])
    stop = row.params.get("stop")
    stops = [stop] if isinstance(stop, str) else stop
    body = student_body(row.messages, max_tokens=longest, stop=stops)
    began = time.perf_counter()
    answer, fault = None, None
    try:
        headers = {"content-type": "application/json"}
        async with session.post(PATH, data=body, headers=headers) as response:
            raw = await response.read()
        answer = read_student_answer(raw) if response.status == 200 else None
        if answer is None:
            fault = Reason.STUDENT_DOWN
    except TimeoutError:
        fault = Reason.STUDENT_SLOW
    except aiohttp.ClientError:
        fault = Reason.STUDENT_DOWN
    except ValueError:
        fault = Reason.STUDENT_MALFORMED
    if answer is not None:
        fault = fault_of(answer, cutoff=None, output=output)
    return Asked(answer, fault, (time.perf_counter() - began) * 1000)


def _judged(row: Row, asked: Asked, run_id: str, scorer: Scorer) -> Evaluation:
    text = asked.answer.text if asked.answer is not None else None
    points = score(scorer.name, row.target, text) if text is not None and not asked.fault else 0.0
    return Evaluation(
        run_id=run_id,
        input_hash=row.input_hash,
        split=row.split,
        scorer=scorer.name,
        score=points,
        agrees=not asked.fault and scorer.agrees(points),
        teacher_output=row.target,
        student_output=text,
        confidence=asked.answer.confidence if asked.answer is not None else None,
        latency_ms=asked.latency_ms,
        fault=asked.fault,
    )
