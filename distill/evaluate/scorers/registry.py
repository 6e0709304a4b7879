"""All scorers by name, and the score of a pair by any of them that is a pure function.

A new scorer is a file beside this one, its line in SCORERS, and its name in
store.records.ScorerName, which settings are validated against.
"""

from __future__ import annotations

from distill.evaluate.scorers.exact import EXACT
from distill.evaluate.scorers.json_fields import JSON
from distill.evaluate.scorers.judge import JUDGE
from distill.evaluate.scorers.similarity import TEXT
from distill.evaluate.scorers.spec import ScorerSpec
from distill.evaluate.scorers.tool_calls import calls_score
from store.chat.tools import ToolAnswer, read_tool_answer
from store.records import ScorerName

SCORERS: dict[ScorerName, ScorerSpec] = {spec.name: spec for spec in (EXACT, JSON, TEXT, JUDGE)}


def is_paid(name: str) -> bool:
    """Whether a scorer asks the teacher; False for a name that this version does not know."""
    return any(spec.paid and spec.name == name for spec in SCORERS.values())


def score(name: ScorerName, teacher: str, student: str, *, tools: bool = False) -> float:
    """How much the student's answer agrees with the teacher's, from 0 to 1.

    `tools`: whether the task's requests have some. Calls are then paired so that they match best,
    in whatever order they are made; words never match a call. Raises ValueError for a paid scorer.
    """
    spec = SCORERS[name]
    if spec.compare is None:
        raise ValueError(f"the scorer `{name}` needs a judge")
    expected = read_tool_answer(teacher) if tools else None
    if expected is None:
        return spec.compare(teacher, student)
    given = read_tool_answer(student)
    return 0.0 if given is None else _score_tool_answers(spec, expected, given)


def _score_tool_answers(spec: ScorerSpec, expected: ToolAnswer, given: ToolAnswer) -> float:
    if expected.calls and given.calls:
        points = calls_score(expected.calls, given.calls)
        return points if spec.partial_calls else float(points == 1)
    compare = spec.compare_words or spec.compare
    if expected.calls or given.calls or compare is None:
        return 0.0
    return compare(expected.text, given.text)
