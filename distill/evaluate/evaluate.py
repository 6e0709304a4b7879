"""Asks a student for rows whose answer is known, as the proxy would ask it, and scores it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp

from distill.dataset.rows import Row
from distill.evaluate.scorers.spec import Scoring
from distill.evaluate.scoring import Scorer, scoring
from distill.run.progress import Progress
from store.chat.asking import STUDENT_PATH, StudentReply, ask_student
from store.errors import TeacherError
from store.records import Evaluation, TermsOfService
from store.settings.tasks import EvaluateSettings

_HEADERS = {"content-type": "application/json"}
_PATH = STUDENT_PATH.lstrip("/")  # within the session's address, which may have a path itself


async def evaluate(
    base_url: str,
    rows: Sequence[Row],
    *,
    run_id: str,
    terms: TermsOfService,
    scorer: Scorer,
    settings: EvaluateSettings,
    progress: Progress,
    score: Scoring | None = None,
) -> list[Evaluation]:
    """One evaluation a row, in the order of the rows. Never raises for a student's faults.

    `base_url`: of the student's server, without /v1. `terms`: those that the proxy is to serve it
    by, as far as they are known: an answer that breaks them is a fault of its row. Without a
    confidence model, which is fitted to these evaluations, the confidence is the lowest token
    log-probability. `score`: how a pair is scored; None: as the scorer does by itself.
    Raises TeacherError when the scorer is a paid one and the teacher cannot be asked.
    """
    score = score or scoring(scorer)
    slots = asyncio.Semaphore(settings.concurrency)
    done = agreed = 0

    async def one(session: aiohttp.ClientSession, row: Row) -> Evaluation:
        nonlocal done, agreed
        async with slots:
            reply = await ask_row(session, terms, row)
        evaluation = await _judged(row, reply, run_id, scorer, score)
        done, agreed = done + 1, agreed + evaluation.agrees
        progress("evaluate", done, len(rows), f"{agreed} of {done} agree")
        return evaluation

    broken: list[BaseException] = []
    try:
        async with (
            student_session(base_url) as session,
            asyncio.TaskGroup() as group,
        ):
            tasks = [group.create_task(one(session, row)) for row in rows]
    except* TeacherError as failed:  # the same one of all rows that waited for the judge
        broken += failed.exceptions
    if broken:
        raise broken[0]
    return [task.result() for task in tasks]


async def ask_row(session: aiohttp.ClientSession, terms: TermsOfService, row: Row) -> StudentReply:
    """Asks a student for one row, under these terms. The session holds the student's address."""

    async def send(body: bytes) -> tuple[int, bytes]:
        try:
            async with session.post(
                STUDENT_PATH.lstrip("/"), data=body, headers=_HEADERS
            ) as response:
                return response.status, await response.read()
        except TimeoutError:
            raise
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from None

    return await ask_student(terms, {**row.params, "messages": row.messages}, send)


def student_session(base_url: str) -> aiohttp.ClientSession:
    """A session for `ask_row`. The terms' time limit holds, and no other.

    `base_url`: of the student's server, without /v1.
    """
    return aiohttp.ClientSession(f"{base_url}/", timeout=aiohttp.ClientTimeout())


async def _judged(
    row: Row, reply: StudentReply, run_id: str, scorer: Scorer, score: Scoring
) -> Evaluation:
    text = reply.answer.text if reply.answer is not None else None
    points = 0.0
    if text is not None and not reply.fault:
        points = await score(row.target, text, row.messages)
    return Evaluation(
        run_id=run_id,
        input_hash=row.input_hash,
        split="frequent" if row.frequent else row.split,
        scorer=scorer.name,
        score=points,
        agrees=not reply.fault and scorer.agrees(points),
        teacher_output=row.target,
        student_output=text,
        confidence=reply.confidence,
        latency_ms=reply.ms,
        fault=reply.fault,
        signals=reply.answer.signals if reply.answer is not None else None,
        fingerprint=row.fingerprint,
        group=row.group,
    )
