"""Feedback of clients on a student's answers, as evidence: a complaint is a failed audit.

The newest feedback on an answer replaces all before. It is a complaint if its score is below 0.5,
or if it has no score and a correction that differs from the answer. A complaint becomes a
comparison that disagrees; if newer feedback takes it back, the comparison is replaced by one that
agrees.

Praise alone becomes no comparison: clients do not praise a fair sample of the answers. Complaints
are no fair sample either, but they can only count against a student, which is the safe side.
"""

from __future__ import annotations

import orjson

from distill.dataset.exchange import target_in_correction, target_in_message
from store.chat.normal_form import normal_answer
from store.chat.tools import read_tool_answer
from store.database.comparisons import write_comparisons
from store.database.database import Database
from store.database.feedback import (
    AnswerFeedback,
    delete_feedback_news,
    feedback_to_compare,
    has_new_feedback,
    judged_answers,
)
from store.records import Comparison

MIN_GOOD_SCORE = 0.5  # of scores from 0 to 1


def feedback_comparisons(db: Database) -> list[Comparison]:
    """Writes and returns the comparisons that follow from feedback since the last call.

    Idempotent, whatever the order in which feedback and traces are collected, and whatever is
    killed when: the collector records in its transaction which traces have news, and here the
    records are deleted in the transaction that writes the comparisons. Without news it is one query
    on an empty table. `at` of a comparison is when its feedback came. Raises StoreError.
    """
    if not has_new_feedback(db):
        return []
    with db.transaction():
        rows = feedback_to_compare(db, MIN_GOOD_SCORE)
        comparisons = [_comparison(row) for row in rows if _counts(row)]
        write_comparisons(db, comparisons)
        delete_feedback_news(db)
    return comparisons


def judged_pairs(db: Database, task: str) -> list[tuple[bool, bool]]:
    """Labels of (the judge, people) for the same answers of a task's students; True: good.

    Of comparisons that belong together the first alone: a bound takes the pairs as independent.
    Audits only: in shadow the client got the teacher's answer, and its feedback is about that one.
    Audits are a fair sample of what was served, but people do not give feedback on a fair sample of
    them. As long as they complain more readily than they praise, people seem stricter than they
    are, and a bound that is corrected by these pairs is too low rather than too high.
    """
    return [
        (one.agrees, not complains(one.score, one.correction, one.student_output))
        for one in judged_answers(db, task)
    ]


def complains(score: float | None, correction: str | None, answer: str | None) -> bool:
    """Whether feedback is a complaint. Without a score, its correction decides."""
    if score is not None:
        return score < MIN_GOOD_SCORE
    if correction is None or answer is None:
        return correction is not None
    # in words or as calls: an answer to a request with tools shows which it was
    with_tools = {"tools": read_tool_answer(answer) is not None}
    return normal_answer(target_in_correction(correction, with_tools)) != normal_answer(answer)


def _counts(row: AnswerFeedback) -> bool:
    """Whether a comparison follows: praise counts only if it takes a complaint back."""
    return row.complained or complains(row.score, row.correction, _answer(row))


def _comparison(row: AnswerFeedback) -> Comparison:
    answer = _answer(row)
    agrees = not complains(row.score, row.correction, answer)
    return Comparison(
        trace_id=row.trace_id,
        task=row.task,
        student_id=row.student_id,
        kind="feedback",
        scorer=row.scorer or "exact",
        score=float(agrees) if row.score is None else row.score,
        agrees=agrees,
        servable=True,  # it was served
        fault=None,
        confidence=row.confidence,
        teacher_output=row.correction,
        student_output=answer,
        at=row.feedback_at,
    )


def _answer(row: AnswerFeedback) -> str | None:
    """The answer that the student served; None when the trace does not hold it."""
    try:
        messages = orjson.loads(row.output_messages or "[]")
    except orjson.JSONDecodeError:  # not written by us: it must not block the others
        return None
    first = messages[0] if isinstance(messages, list) and messages else None
    if not isinstance(first, dict):
        return None
    return target_in_message(first, {"tools": bool(first.get("tool_calls"))})
