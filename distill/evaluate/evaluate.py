"""Asks a student for rows whose answer is known, as the proxy would ask it, and scores it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from distill.dataset.rows import Row
from distill.evaluate.scorers import Scorer, Scoring, scoring
from distill.run.progress import Progress
from store.chat.confidence import confidence_of
from store.chat.student_wire import StudentAnswer, fault_of, read_student_answer, student_body
from store.errors import TeacherError
from store.records import (
    ConfidenceModel,
    Evaluation,
    Forms,
    OutputKind,
    Reason,
)
from store.settings.tasks import EvaluateSettings

PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to a student, and what came of it."""

    answer: StudentAnswer | None  # None: there was none that could be read
    confidence: float | None  # of the answer
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
    score: Scoring | None = None,
    forms: Forms | None = None,
) -> list[Evaluation]:
    """One evaluation a row, in the order of the rows. Never raises for a student's faults.

    `base_url`: of the student's server, without /v1. `timeout_s`: for each answer, as for the
    proxy. What the student cannot answer within it, or answers unservably, is a fault of that row.
    The confidence is the lowest token log-probability, as no model is fitted before this.
    `forms`: of the teacher's answers. `score`: how a pair is scored; None: as the scorer does by
    itself. Raises TeacherError when that takes a judge who cannot be asked.
    """
    score = score or scoring(scorer)
    slots = asyncio.Semaphore(settings.concurrency)
    done = agreed = 0

    async def one(session: aiohttp.ClientSession, row: Row) -> Evaluation:
        nonlocal done, agreed
        async with slots:
            asked = await ask(session, row, output=output, max_tokens=max_tokens, forms=forms)
        evaluation = await _judged(row, asked, run_id, scorer, score)
        done, agreed = done + 1, agreed + evaluation.agrees
        progress("evaluate", done, len(rows), f"{agreed} of {done} agree")
        return evaluation

    broken: list[BaseException] = []
    try:
        async with (
            aiohttp.ClientSession(base_url, timeout=aiohttp.ClientTimeout(timeout_s)) as session,
            asyncio.TaskGroup() as group,
        ):
            tasks = [group.create_task(one(session, row)) for row in rows]
    except* TeacherError as failed:  # the same one of all rows that waited for the judge
        broken += failed.exceptions
    if broken:
        raise broken[0]
    return [task.result() for task in tasks]


async def ask(
    session: aiohttp.ClientSession,
    row: Row,
    *,
    output: OutputKind,
    max_tokens: int,
    forms: Forms | None = None,
    model: ConfidenceModel | None = None,
    cutoff: float | None = None,
) -> Asked:
    """Asks a student for one row. The session holds its address and the time limit.

    The row's own limit, stops and response format hold, as a client's do in the proxy. `forms`,
    `model` and `cutoff`: as in a route.
    """
    body = student_body(row.messages, max_tokens=max_tokens, params=row.params)
    began = time.perf_counter()
    answer, confidence, fault = None, None, None
    try:
        headers = {"content-type": "application/json"}
        async with session.post(PATH, data=body, headers=headers) as response:
            raw = await response.read()
        answer = read_student_answer(raw) if response.status == 200 else None
        if answer is None:
            fault = Reason.STUDENT_ERROR
    except TimeoutError:
        fault = Reason.STUDENT_SLOW
    except aiohttp.ClientError:
        fault = Reason.STUDENT_DOWN
    except ValueError:
        fault = Reason.STUDENT_ERROR
    ms = (time.perf_counter() - began) * 1000
    if answer is not None:
        if answer.signals is not None:
            confidence = confidence_of(answer.signals, model)
        fault = await fault_of(
            answer,
            output=output,
            request=row.params,
            forms=forms,
            confidence=confidence,
            cutoff=cutoff,
        )
    return Asked(answer, confidence, fault, ms)


async def _judged(
    row: Row, asked: Asked, run_id: str, scorer: Scorer, score: Scoring
) -> Evaluation:
    text = asked.answer.text if asked.answer is not None else None
    points = 0.0
    if text is not None and not asked.fault:
        points = await score(row.target, text, row.messages)
    return Evaluation(
        run_id=run_id,
        input_hash=row.input_hash,
        split=row.split,
        scorer=scorer.name,
        score=points,
        agrees=not asked.fault and scorer.agrees(points),
        teacher_output=row.target,
        student_output=text,
        confidence=asked.confidence,
        latency_ms=asked.latency_ms,
        fault=asked.fault,
        signals=asked.answer.signals if asked.answer is not None else None,
        fingerprint=row.fingerprint,
    )
