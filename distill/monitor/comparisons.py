"""Compares two answers to one live request, the teacher's and the student's.

Only requests that a certificate covers are compared: complete answers of the teacher to text
requests, in words or as tool calls, by the same rules as rows of distill.dataset.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from distill.dataset.exchange import Lesson
from distill.dataset.rows import Row
from store.records import (
    Comparison,
    ComparisonKind,
    LoggedExchange,
    Reason,
    Route,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPair:
    """One live request with both answers."""

    row: Row  # the request; its target is the teacher's answer
    begun: float  # when the request was made
    kind: ComparisonKind
    student: str | None  # the student's answer; None: none that could be read
    fault: Reason | None  # why the proxy would not serve it; None: it would
    confidence: float | None


# A pair with both answers → score from 0 to 1. Raises TeacherError when it needs a judge and none
# can be asked.
PairScoring = Callable[[Route, AnswerPair], Awaitable[float]]


def row_of(exchange: LoggedExchange, lesson: Lesson, target: str | None = None) -> Row:
    """A logged request as a row.

    `lesson`: of the exchange. `target`: the teacher's answer; None: it answered the request itself.
    """
    return Row(
        trace_id=exchange.trace_id,
        input_hash=exchange.input_hash,
        split="heldout",  # nothing is learned from a row that is made here
        fingerprint=exchange.fingerprint,
        model=exchange.model,
        messages=exchange.request.messages,
        params=lesson.params,
        target=lesson.target if target is None else target,
    )


async def compare(pair: AnswerPair, route: Route, scoring: PairScoring) -> Comparison:
    """Scores a pair. The caller sets `at`, which is 0 here, and `group_key`.

    An answer that the proxy would not serve is not scored and does not agree: the teacher answers.
    """
    points = 0.0
    if pair.fault is None and pair.student is not None:
        points = await scoring(route, pair)
    return Comparison(
        trace_id=pair.row.trace_id,
        task=route.task,
        student_id=str(route.student_id),
        kind=pair.kind,
        scorer=route.scorer,
        score=points,
        agrees=pair.fault is None and points >= route.agree_at,
        servable=pair.fault is None,
        fault=pair.fault,
        confidence=pair.confidence,
        teacher_output=pair.row.target,
        student_output=pair.student,
        at=0.0,
    )
