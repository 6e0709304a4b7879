"""What the imported answers of a file look like, so that nobody learns a wrapper unseen.

Counted while rows are read, in little memory: the shapes of the answers, how many look cut off,
and one answer of each common shape.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import orjson

from store.chat.shape import text_of
from store.jsontext import JsonMapping
from store.records import Trace

_MAX_SHAPES, _MAX_KEYS, _MAX_KEY_CHARS = 100, 8, 24
_MAX_DIFFERENT = 1_000  # answers that are told apart
_MAX_LINE_CHARS, _MAX_SAMPLE_CHARS = 40, 72
_SHOWN_SHAPES, _SHOWN_ANSWERS = 3, 3
_MIN_SHARE = 0.05  # of the answers: a more common one is named
_OTHER = "of other shapes"
_CUT = re.compile(r"(\.\.\.|…|[\[(<]\s*\.{0,3}\s*truncated[^\])>]*[\])>])\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AnswersReport:
    """The shapes of a file's answers."""

    shapes: dict[str, int]  # how many answers have it, the most common first
    different: int  # answers that differ, up to _MAX_DIFFERENT
    common: dict[str, float]  # the most common answers, shortened, and their shares
    look_cut_off: int
    samples: list[str]  # shortened: one answer of each common shape, and one that looks cut off


class AnswerShapes:
    """Counts the shapes of answers."""

    def __init__(self) -> None:
        self._shapes: Counter[str] = Counter()
        self._samples: dict[str, str] = {}
        self._answers: Counter[str] = Counter()
        self._cut = 0
        self._cut_sample: str | None = None

    def add(self, trace: Trace) -> None:
        for answer in orjson.loads(trace.output_messages or "[]"):
            text = text_of(answer.get("content"))
            shape, is_whole = _shape(answer, text)
            if shape not in self._shapes and len(self._shapes) >= _MAX_SHAPES:
                shape = _OTHER
            self._shapes[shape] += 1
            shown = one_line(text or _calls(answer), _MAX_SAMPLE_CHARS)
            self._samples.setdefault(shape, shown)
            if shown in self._answers or len(self._answers) < _MAX_DIFFERENT:
                self._answers[shown] += 1
            if not is_whole or "length" in trace.finish_reasons:
                self._cut += 1
                self._cut_sample = self._cut_sample or shown

    def report(self) -> AnswersReport:
        total = self._shapes.total()
        shapes = dict(self._shapes.most_common())
        samples = [self._samples[shape] for shape in list(shapes)[:_SHOWN_SHAPES]]
        if self._cut_sample is not None and self._cut_sample not in samples:
            samples.append(self._cut_sample)
        common = {
            text: count / total
            for text, count in self._answers.most_common(_SHOWN_ANSWERS)
            if count > 1 and count / total >= _MIN_SHARE
        }
        return AnswersReport(shapes, len(self._answers), common, self._cut, samples)


def summary(report: AnswersReport) -> str:
    """The report in words: "98 % JSON with the keys category; 2 % text. 3 look cut off." """
    total = sum(report.shapes.values())
    shapes = list(report.shapes.items())
    parts = [f"{_percent(n, total)} {shape}" for shape, n in shapes[:_SHOWN_SHAPES]]
    if rest := sum(n for _, n in shapes[_SHOWN_SHAPES:]):
        parts.append(f"{_percent(rest, total)} in {len(shapes) - _SHOWN_SHAPES} other shapes")
    sentences = ["; ".join(parts)]
    if report.common:
        named = ", ".join(
            f"{quoted(text)} {share:.0%}".replace("%", " %")
            for text, share in report.common.items()
        )
        least = "at least " if report.different >= _MAX_DIFFERENT else ""
        sentences.append(f"{least}{report.different:,} different, most often {named}")
    if report.look_cut_off:
        look = "looks" if report.look_cut_off == 1 else "look"
        sentences.append(f"{report.look_cut_off:,} {look} cut off")
    return ". ".join(sentences)


def one_line(text: str, max_chars: int) -> str:
    """The text on one line of printable characters, shortened."""
    start = text[: 2 * max_chars]
    line = " ".join("".join(c if c.isprintable() else " " for c in start).split())
    return line if len(line) <= max_chars and len(start) == len(text) else line[:max_chars] + "…"


def quoted(text: str) -> str:
    return f'"{text}"'


def _percent(count: int, total: int) -> str:
    share = 100 * count / total
    if count < total:
        return "under 1 %" if share < 1 else f"{min(round(share), 99)} %"
    return "100 %"


def _shape(answer: JsonMapping, text: str) -> tuple[str, bool]:
    """The shape of an answer, and whether it looks whole."""
    if answer.get("tool_calls") or answer.get("function_call"):
        return f"calls of {_names(_functions(answer))}", True
    if not text:
        return ("refusals" if answer.get("refusal") else "without text"), True
    bare = text.strip()
    if bare[:1] in ("{", "["):
        return _json_shape(bare)
    is_whole = not _CUT.search(bare[-200:]) and bare.count("```") % 2 == 0
    is_short = len(bare) <= _MAX_LINE_CHARS and "\n" not in bare
    is_quoted = len(bare) > 1 and bare[0] == bare[-1] == '"'
    shape = "short text" if is_short else "longer text"
    return ("text in quotation marks" if is_quoted else shape), is_whole


def _json_shape(text: str) -> tuple[str, bool]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "text that begins like JSON", False
    if isinstance(value, dict):
        return (f"JSON with the keys {_names(list(value))}" if value else "empty JSON"), True
    return "JSON lists", True


def _functions(answer: JsonMapping) -> list[str]:
    calls: list[Any] = answer.get("tool_calls") or [{"function": answer.get("function_call")}]
    functions = [call.get("function") for call in calls if isinstance(call, dict)]
    names = [f.get("name") for f in functions if isinstance(f, dict)]
    return sorted({name for name in names if isinstance(name, str)})


def _calls(answer: JsonMapping) -> str:
    calls = answer.get("tool_calls") or answer.get("function_call") or answer.get("refusal")
    return calls if isinstance(calls, str) else orjson.dumps(calls).decode() if calls else ""


def _names(names: list[str]) -> str:
    shown = [one_line(name, _MAX_KEY_CHARS) for name in names[:_MAX_KEYS]]
    return ", ".join(shown + ["…"] * (len(names) > _MAX_KEYS)) or "nothing"
