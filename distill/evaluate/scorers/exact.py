"""Scorer `exact`: 1 when both answers have the same normal text, else 0. Case counts."""

from __future__ import annotations

from distill.evaluate.scorers.spec import ScorerSpec
from store.chat.normal_form import normal_text


def exact_score(teacher: str, student: str) -> float:
    """1 for the same text after Unicode NFC and without white space around it, else 0."""
    return float(normal_text(teacher) == normal_text(student))


EXACT = ScorerSpec(name="exact", agree_at=1.0, compare=exact_score)
