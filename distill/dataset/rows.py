"""Real traces become rows to learn from: what is taken, what is left out and why.

A row is one input with the answer that it should have. An input is in one row only, so that rows
are independent of each other, which is what the gate's statistics rest on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import orjson

from distill.dataset.split import split_of
from distill.dataset.targets import answer_in, corrected, model_of, params_of, why_not_tools
from distill.dataset.traffic import Shape, Traffic, from_json, request_of
from store.chat.normal_form import normal_answer
from store.chat.shape import Messages, input_hash
from store.chat.student_wire import ROLES
from store.files.atomic import read_lines, write_atomically
from store.records import (
    Origin,
    Outcome,
    PromptTemplate,
    Split,
)
from store.settings.tasks import SplitSettings

SPLITS: tuple[Split, ...] = ("train", "calibration", "heldout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One real input with the answer that it should have."""

    trace_id: str
    input_hash: str  # of what the user says and of the values in the prompt's template
    split: Split
    fingerprint: str  # or the id of the template that the system prompt is made from
    model: str  # as the client named the teacher
    messages: Messages  # OpenAI wire format, without the answer; the last one is the user's
    params: dict[str, Any]  # of the request, those of REASKED_PARAMS that it had, with its tools
    target: str  # the teacher's answer, or a client's correction: see distill.dataset.targets
    origin: Origin = "trace"  # or correction

    @property
    def messages_json(self) -> str:
        """The messages as a JSON array."""
        return orjson.dumps(self.messages).decode()


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows of a task, oldest first, and how many traces were left out for which reason.

    Its parts are the only way to the rows of one split: what must not see a held-out row is handed
    `train`, `calibration` or `seen`, and filters nothing by itself.
    """

    rows: list[Row]
    left_out: dict[str, int] = field(default_factory=dict)
    templates: list[PromptTemplate] = field(default_factory=list)  # that rows are made from

    @property
    def train(self) -> list[Row]:
        """The rows that the student learns from."""
        return self._of("train")

    @property
    def calibration(self) -> list[Row]:
        """The rows that checkpoints, confidence and cutoffs are chosen on."""
        return self._of("calibration")

    @property
    def heldout(self) -> list[Row]:
        """The rows that certify the student. Nothing may be chosen or learned from them."""
        return self._of("heldout")

    @property
    def seen(self) -> list[Row]:
        """The rows that may be looked at before the certificate: all but the held-out ones."""
        return [row for row in self.rows if row.split != "heldout"]

    @property
    def sizes(self) -> dict[Split, int]:
        """How many rows each split has."""
        return {split: len(self._of(split)) for split in SPLITS}

    def _of(self, split: Split) -> list[Row]:
        return [row for row in self.rows if row.split == split]

    @property
    def fingerprints(self) -> list[str]:
        """What the rows hold for: fingerprints and ids of templates.

        And of each template the rest of its shape. That stays when a later run recognises the
        template a little differently, so that both count as attempts under the same fingerprints.
        """
        names = {row.fingerprint for row in self.rows}
        return sorted(names | {template.shape for template in self.templates})


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One answer to one input. Times in seconds since the epoch."""

    asked_at: float
    answered_at: float
    row: Row

    @property
    def order(self) -> tuple[float, float, str]:
        return self.answered_at, self.asked_at, self.row.trace_id


def choose_rows(
    traces: Iterable[Mapping[str, Any]],
    shares: SplitSettings,
    *,
    traffic: Traffic | None = None,
    audits: Iterable[Mapping[str, Any]] = (),
    corrections: Iterable[Mapping[str, Any]] = (),
    suspect_since: float | None = None,
) -> Selection:
    """The rows that these traces make. A trace has the columns of the traces table.

    Taken are whole answers of the teacher to text requests, in words or as tool calls, of the
    shapes that count in the recent traffic (see distill.dataset.traffic). `audits`: traces that a
    student answered, with what the teacher answers to them as `teacher_output`. `corrections`:
    traces that anybody answered, with what the answer should have been as `correction`. Both say
    `answered_at`.

    When an input was answered several times, the newest correction counts; without one the answer
    given most often, the newer of two equally common ones.

    `suspect_since`: from then on the task is another one than before. Where an input was answered
    before and after, only what came after counts, and what was asked before is trained on, but
    neither calibrates nor judges.
    """
    traffic = traffic or Traffic()
    left_out: Counter[str] = Counter()
    usable: list[_Candidate] = []
    for trace in _once(corrections, audits, traces):
        reason = why_not(trace)
        if reason:
            left_out[reason] += 1
        else:
            usable.append(_candidate(trace, traffic, shares))

    counting = traffic.counting(Counter(c.row.fingerprint for c in usable))
    groups: defaultdict[str, list[_Candidate]] = defaultdict(list)
    for candidate in usable:
        if candidate.row.fingerprint in counting:
            groups[candidate.row.input_hash].append(candidate)
        else:
            left_out["rare_fingerprint"] += 1

    since = -inf if suspect_since is None else suspect_since
    chosen = []
    for group in groups.values():
        current = [c for c in group if c.answered_at >= since] or group
        left_out["outdated"] += len(group) - len(current)
        winner = _verdict(current)
        same = sum(normal_answer(c.row.target) == normal_answer(winner.row.target) for c in current)
        left_out["duplicate"] += same - 1
        left_out["contradicted"] += len(current) - same
        if winner.row.split == "train" or max(c.asked_at for c in current) >= since:
            chosen.append(winner)
        else:
            left_out["outdated"] += 1
    chosen.sort(key=lambda c: (c.asked_at, c.row.trace_id))
    rows = [c.row for c in chosen]
    used = {row.fingerprint for row in rows}
    return Selection(
        rows,
        {name: count for name, count in sorted(left_out.items()) if count},
        [t for t in traffic.templates if t.template_id in used],
    )


def why_not(trace: Mapping[str, Any]) -> str:
    """Why a trace cannot be learnt from, in one word; empty when it can."""
    if "correction" in trace or "teacher_output" in trace:
        return _why_not_asked(trace) or ("" if _answer(trace).strip() else "no_answer")
    choices = from_json(trace["output_messages"]) or []
    choice = choices[0] if len(choices) == 1 and isinstance(choices[0], dict) else {}
    calls = _calls_something(choice)
    answered = bool(answer_in(choice, params_of(trace)).strip())
    ended = ("stop", "tool_calls") if calls else ("stop",)
    faults = (
        ("not_from_teacher", trace["served_by"] != "teacher"),
        ("incomplete", trace["status_code"] != 200 or trace["outcome"] != Outcome.COMPLETE),
        ("tools", calls and not answered),
        (_why_not_asked(trace), True),
        ("several_choices", len(choices) > 1),
        ("not_finished", from_json(trace["finish_reasons"]) not in ([end] for end in ended)),
        ("no_answer", not answered),
    )
    return next((reason for reason, is_so in faults if reason and is_so), "")


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as JSON lines; readers see the whole file or none."""
    lines = (orjson.dumps(asdict(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    write_atomically(path, b"".join(lines))


def read_rows(path: Path) -> list[Row]:
    """The rows of a file that `write_rows` wrote."""
    rows = [Row(**line) for line in read_lines(path)]
    shared: dict[bytes, Any] = {}  # thousands of rows have the same tools
    for row in rows:
        if tools := row.params.get("tools"):
            row.params["tools"] = shared.setdefault(orjson.dumps(tools), tools)
    return rows


def _once(*kinds: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Each trace once, of the first kind that has it."""
    seen: set[str] = set()
    for kind in kinds:
        for trace in kind:
            if str(trace["trace_id"]) not in seen:
                seen.add(str(trace["trace_id"]))
                yield trace


def _candidate(trace: Mapping[str, Any], traffic: Traffic, shares: SplitSettings) -> _Candidate:
    messages = from_json(trace["input_messages"])
    params = params_of(trace)
    shape = traffic.shape_of(trace["fingerprint"], lambda: request_of(trace))
    of_input = _input_hash(trace, messages, shape)
    asked_at = _seconds(trace["start_time"])
    row = Row(
        trace_id=str(trace["trace_id"]),
        input_hash=of_input,
        split=split_of(of_input, shares),
        fingerprint=shape.name,
        model=model_of(trace),
        messages=messages,
        params=params,
        target=_answer(trace),
        origin="correction" if "correction" in trace else "trace",
    )
    return _Candidate(asked_at, _seconds(trace.get("answered_at", asked_at)), row)


def _input_hash(trace: Mapping[str, Any], messages: Messages, shape: Shape) -> str:
    if shape.values:
        return input_hash(messages, shape.values)
    return trace.get("input_hash") or input_hash(messages)


def _answer(trace: Mapping[str, Any]) -> str:
    """The answer to learn."""
    if "correction" in trace:
        return corrected(trace["correction"] or "", params_of(trace))
    if "teacher_output" in trace:
        return trace["teacher_output"] or ""
    return answer_in(from_json(trace["output_messages"])[0], params_of(trace))


def _verdict(group: list[_Candidate]) -> _Candidate:
    """The newest correction, else the newest of the answers that are commonest."""
    corrections = [c for c in group if c.row.origin == "correction"]
    if corrections:
        return max(corrections, key=lambda c: c.order)
    votes = Counter(normal_answer(c.row.target) for c in group)
    return max(group, key=lambda c: (votes[normal_answer(c.row.target)], c.order))


def _why_not_asked(trace: Mapping[str, Any]) -> str:
    """Why what was asked cannot be learnt, whoever answered it."""
    why = why_not_tools(trace)
    if why:
        return why
    return "" if _is_text_conversation(from_json(trace["input_messages"])) else "not_text"


def _is_text_conversation(messages: Any) -> bool:
    """Whether a student's chat template can take it, and it ends with what the user says."""
    if not isinstance(messages, list) or not messages:
        return False
    if not all(isinstance(m, dict) for m in messages):
        return False
    return messages[-1].get("role") == "user" and all(
        m.get("role") in (*ROLES, "developer") and not _calls_something(m) and _is_text(m)
        for m in messages
    )


def _is_text(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(p, dict) and p.get("type") == "text" for p in content)
    return isinstance(content, str)


def _calls_something(message: Mapping[str, Any]) -> bool:
    return bool(message.get("tool_calls") or message.get("function_call"))


def _seconds(moment: Any) -> float:
    """A time column's value, as a number of seconds or as a datetime."""
    return float(moment.timestamp() if hasattr(moment, "timestamp") else moment)
