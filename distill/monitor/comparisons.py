"""Two answers to one live request, the teacher's and the student's, and how they become a
comparison.

Compared is what a certificate speaks of: whole answers of the teacher to text requests, in words or
as tool calls, as distill.dataset takes them for rows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from distill.dataset.rows import Row
from distill.dataset.targets import answer_in, model_of, params_of
from store.records import (
    Comparison,
    ComparisonKind,
    Reason,
    Route,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One live request with both answers."""

    row: Row  # the request; its target is the teacher's answer
    begun: float  # when the request was made
    kind: ComparisonKind
    student: str | None  # None: no answer that could be read
    fault: Reason | None  # why the proxy would not serve it; None: it would
    confidence: float | None


# A pair whose answers are both there → score from 0 to 1. Raises TeacherError when it takes a judge
# that cannot be asked.
PairScoring = Callable[[Route, Pair], Awaitable[float]]


def row_of(trace: Mapping[str, Any], target: str | None = None) -> Row:
    """A logged request as a row. A trace has the columns of the traces table.

    `target`: the teacher's answer; None: the one in the trace is the teacher's.
    """
    return Row(
        trace_id=str(trace["trace_id"]),
        input_hash=trace["input_hash"],
        split="heldout",  # nothing is learned from a row that is made here
        fingerprint=trace["fingerprint"],
        model=model_of(trace),
        messages=orjson.loads(trace["input_messages"] or "[]"),
        params=params_of(trace),
        target=served_text(trace) if target is None else target,
    )


def served_text(trace: Mapping[str, Any]) -> str:
    """The answer that the client got, as a student gives it; empty when the trace holds none."""
    choices = orjson.loads(trace["output_messages"] or "[]")
    first = choices[0] if choices and isinstance(choices[0], dict) else {}
    return answer_in(first, params_of(trace))


async def compared(pair: Pair, route: Route, scoring: PairScoring) -> Comparison:
    """Scores a pair. `at` is left at 0, for whoever writes it.

    What the proxy would not serve is not scored, and does not agree: the teacher answers it.
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
