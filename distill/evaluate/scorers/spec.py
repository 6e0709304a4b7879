"""What a scorer is: the record that each of them registers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from distill.teacher.client import TeacherClient
from store.chat.shape import Messages
from store.records import ScorerName
from store.settings.tasks import EvaluateSettings

# (teacher's answer, student's answer) → score from 0 to 1
Compare = Callable[[str, str], float]
# (teacher's answer, student's answer, the request's messages) → score from 0 to 1
Scoring = Callable[[str, str, Messages], Awaitable[float]]


# (client, settings, file that keeps the paid scores or None, counter of the pairs that could not be
# scored by what was wrong) → a scoring that raises TeacherError when the teacher cannot be asked
AskTeacher = Callable[[TeacherClient, EvaluateSettings, Path | None, Counter[str]], Scoring]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerSpec:
    """One way to score a pair of answers."""

    name: ScorerName
    agree_at: float  # the score from which an answer agrees, where evaluate.agree_at sets no other
    compare: Compare | None = None  # a pure function; None: a paid scorer
    # of answers to requests with tools: words are compared by this, where not by `compare`
    compare_words: Compare | None = None
    partial_calls: bool = False  # calls that match in part score in part; else in all or nothing
    ask: AskTeacher | None = None  # of a paid scorer

    @property
    def paid(self) -> bool:
        """Whether each pair costs a call, whose verdict may be wrong and is checked by people."""
        return self.ask is not None
