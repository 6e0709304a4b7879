"""Queries on clients' feedback, and on which of it was not compared yet."""

from __future__ import annotations

from dataclasses import dataclass

from store.database.database import Database
from store.database.rows import record
from store.records import ScorerName


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFeedback:
    """The newest feedback on an answer of a student, with the answer."""

    trace_id: str
    feedback_at: float
    score: float | None
    correction: str | None
    task: str
    student_id: str
    confidence: float | None
    output_messages: str | None  # JSON array, OpenAI wire format
    scorer: ScorerName | None  # of the student's route
    complained: bool  # a complaint about this answer is among the comparisons


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedAnswer:
    """An audited answer that both the judge and people rated."""

    agrees: bool  # by the judge
    student_output: str | None
    score: float | None
    correction: str | None


def has_new_feedback(db: Database) -> bool:
    """Whether there is feedback that was not compared yet."""
    return bool(db.query("has_new_feedback"))


def feedback_to_compare(db: Database, good_from: float) -> list[AnswerFeedback]:
    """The new feedback on answers of students that may be a complaint, or take one back; oldest
    first. `good_from`: a score from here on is no complaint.
    """
    rows = db.query("feedback_to_compare", good_from=good_from)
    return [record(AnswerFeedback, row) for row in rows]


def delete_feedback_news(db: Database) -> None:
    """Notes that all feedback was compared: in the transaction that writes the comparisons."""
    db.execute("delete_feedback_news")


def judged_answers(db: Database, task: str) -> list[JudgedAnswer]:
    """The audits of a task that the judge scored and that have feedback too, oldest first.

    Of those of one group the first.
    """
    return [record(JudgedAnswer, row) for row in db.query("judged_answers", task=task)]
