"""How much a student's answer agrees with the teacher's: a score from 0 to 1, and a bar for it.

exact   1 when both are the same text, else 0. Same means: after Unicode NFC and without white
        space around it. Case counts.
json    matching leaves over all leaves of both sides, so that a missing key costs as much as a
        wrong one and an extra one. Lists are compared by position. 1 and "1" differ, 1 and 1.0 do
        not, nor does the order of keys matter. An answer that is not JSON scores 0.
text    similarity of the two texts, white space folded: 1 - edits / characters of both sides
        (insertions and deletions, rapidfuzz's `ratio`).
        Tool calls are paired so that they match best, in whatever order they are made; a call of
        another function matches in nothing, and words never match a call.
judge   1 when the teacher, asked with a rubric, says that the two are equivalent, else 0: see
        distill.evaluate.judge. The others are pure functions; this one is a paid call.

Of answers to requests with tools (store.chat.tools), `exact` and `text` compare the words, and want
calls to match in all.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rapidfuzz import fuzz

from distill.dataset.answers import Answers
from store.chat.normal_form import normal_text
from store.chat.shape import Messages
from store.chat.tools import Said, ToolCall, read_said
from store.jsontext import read_json
from store.records import (
    OutputKind,
    ScorerName,
)
from store.settings.tasks import EvaluateSettings

PureScorer = Literal["exact", "json", "text"]
# (teacher's answer, student's answer, the request's messages) → score from 0 to 1
Scoring = Callable[[str, str, Messages], Awaitable[float]]

AGREE_AT: dict[ScorerName, float] = {"exact": 1.0, "json": 1.0, "text": 0.8, "judge": 1.0}

_SPACE = re.compile(r"\s+")
_Leaves = dict[tuple[str | int, ...], Any]


@dataclass(frozen=True, slots=True)
class Scorer:
    """How a task's answers are compared."""

    name: ScorerName
    agree_at: float  # an answer with at least this score agrees
    output: OutputKind  # what kind of answers the task has
    reason: str

    def agrees(self, score: float) -> bool:
        """Whether an answer with this score counts as agreeing with the teacher's."""
        return score >= self.agree_at

    @property
    def pure(self) -> PureScorer:
        """Its name, when it is a function of the two texts alone. Raises ValueError otherwise."""
        if self.name == "judge":
            raise ValueError("the scorer `judge` needs a judge")
        return self.name


def choose_scorer(answers: Answers, settings: EvaluateSettings) -> Scorer:
    """The scorer that fits the teacher's answers, or the one that is set."""
    name, reason = _fitting(answers), answers.reason
    if settings.scorer != "auto":
        name, reason = settings.scorer, f"set in evaluate.scorer; {reason}"
    bar = AGREE_AT[name] if settings.agree_at is None else settings.agree_at
    return Scorer(name, bar, answers.kind, reason)


def scoring(scorer: Scorer, judge: Scoring | None = None) -> Scoring:
    """How a pair of answers is scored by this scorer, whichever it is.

    `judge`: who is asked with scorer `judge`. Raises ValueError when that is needed and missing.
    """
    if scorer.name == "judge" and judge is not None:
        return judge
    name, tools = scorer.pure, scorer.output == "tools"

    async def pure(teacher: str, student: str, _: Messages) -> float:
        return score(name, teacher, student, tools=tools)

    return pure


def score(name: PureScorer, teacher: str, student: str, *, tools: bool = False) -> float:
    """How much the student's answer agrees with the teacher's, from 0 to 1.

    `tools`: whether the task's requests have some.
    """
    wanted = read_said(teacher) if tools else None
    if wanted is not None:
        given = read_said(student)
        return 0.0 if given is None else _said_score(name, wanted, given)
    match name:
        case "exact":
            return float(normal_text(teacher) == normal_text(student))
        case "json":
            return _json_score(teacher, student)
        case "text":
            folded = (_SPACE.sub(" ", normal_text(text)) for text in (teacher, student))
            return fuzz.ratio(*folded) / 100


def _fitting(answers: Answers) -> ScorerName:
    if answers.kind in ("json", "tools"):
        return "json"
    return "exact" if answers.short else "text"


def _said_score(name: PureScorer, wanted: Said, given: Said) -> float:
    if not (wanted.calls and given.calls):
        both_words = not wanted.calls and not given.calls
        words: PureScorer = "exact" if name == "json" else name
        return score(words, wanted.text, given.text) if both_words else 0.0
    points = _calls_score(wanted.calls, given.calls)
    return points if name == "json" else float(points == 1)


def _calls_score(wanted: Sequence[ToolCall], given: Sequence[ToolCall]) -> float:
    """Matching leaves over all leaves, with each call beside the one that it matches best.

    A call has a leaf for its function and those of its arguments.
    """
    left, right = [[_call_leaves(call) for call in calls] for calls in (wanted, given)]
    pairs = [[_matching(one, other) for other in right] for one in left]
    if len(left) == len(right) == 1:
        chosen = [pairs[0][0]]
    else:
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - slow to import

        # of pairs that match in as much, those with more places in common
        weights = [[same + shared * 1e-6 for same, shared in row] for row in pairs]
        places = zip(*linear_sum_assignment(weights, maximize=True), strict=True)
        chosen = [pairs[row][column] for row, column in places]
    leaves = sum(map(len, left)) + sum(map(len, right))
    return sum(same for same, _ in chosen) / (leaves - sum(shared for _, shared in chosen))


def _call_leaves(call: ToolCall) -> _Leaves:
    return _leaves({"name": call.name, "arguments": call.arguments})


def _matching(one: _Leaves, other: _Leaves) -> tuple[int, int]:
    """How many leaves of two calls match, and how many places both have."""
    if one["name",] != other["name",]:
        return 0, 0
    shared = one.keys() & other.keys()
    return sum(_same(one[path], other[path]) for path in shared), len(shared)


def _json_score(teacher: str, student: str) -> float:
    wanted, given = _parsed(teacher), _parsed(student)
    if wanted is _NOT_JSON:  # the teacher broke its own format: nothing to compare by field
        return score("exact", teacher, student)
    if given is _NOT_JSON:
        return 0.0
    left, right = _leaves(wanted), _leaves(given)
    same = sum(path in right and _same(leaf, right[path]) for path, leaf in left.items())
    return same / len(left.keys() | right.keys())


_NOT_JSON = object()
_EMPTY_OBJECT, _EMPTY_LIST = object(), object()


def _parsed(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError:
        return _NOT_JSON


def _leaves(value: Any) -> _Leaves:
    """Each leaf by its path. Without recursion: a student's answer may be nested deeply."""
    leaves: _Leaves = {}
    todo: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, dict) and value:
            todo.extend(((*path, key), inner) for key, inner in value.items())
        elif isinstance(value, list) and value:
            todo.extend(((*path, place), inner) for place, inner in enumerate(value))
        elif isinstance(value, dict | list):
            leaves[path] = _EMPTY_OBJECT if isinstance(value, dict) else _EMPTY_LIST
        else:
            leaves[path] = value
    return leaves


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, str) and isinstance(right, str):
        return unicodedata.normalize("NFC", left) == unicodedata.normalize("NFC", right)
    return bool(left == right)
