"""Scorer `text`: the similarity of two texts, white space folded.

1 - edits / characters of both sides, with insertions and deletions (rapidfuzz's `ratio`).
"""

from __future__ import annotations

import re

from rapidfuzz import fuzz

from distill.evaluate.scorers.spec import ScorerSpec
from store.chat.normal_form import normal_text

_SPACE = re.compile(r"\s+")


def text_score(teacher: str, student: str) -> float:
    """The similarity of the two texts."""
    folded = (_SPACE.sub(" ", normal_text(text)) for text in (teacher, student))
    return fuzz.ratio(*folded) / 100


TEXT = ScorerSpec(name="text", agree_at=0.8, compare=text_score)
