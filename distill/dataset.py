"""Real traces become rows to learn from: what is taken, what is left out and why.

A row is one input with the teacher's answer to it. An input is in one row only, so that rows are
independent of each other, which is what the gate's statistics rest on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from distill.split import split_of
from store.files import read_lines, write_atomically
from store.models import Outcome, Split
from store.shape import Messages, input_hash, text_of
from store.student_wire import ROLES
from store.task_settings import SplitSettings

MIN_FINGERPRINT_SHARE = 0.1
# what is sent again when the teacher is asked for a synthetic input; all else is a client's own
# business (`metadata`, `user`, `stream`…) or cannot be learnt from (`n`, `logprobs`, `tools`)
REASKED_PARAMS = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "reasoning_effort",
    "verbosity",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One real input with the teacher's answer."""

    trace_id: str
    input_hash: str
    split: Split
    fingerprint: str
    model: str  # as the client named the teacher
    messages: Messages  # OpenAI wire format, without the answer; the last one is the user's
    params: dict[str, Any]  # of the request, those of REASKED_PARAMS that it had
    target: str  # the teacher's answer

    @property
    def messages_json(self) -> str:
        """The messages as a JSON array."""
        return orjson.dumps(self.messages).decode()


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows of a task, oldest first, and how many traces were left out for which reason."""

    rows: list[Row]
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Candidate:
    start_time: float
    row: Row


def choose_rows(traces: Iterable[Mapping[str, Any]], shares: SplitSettings) -> Selection:
    """The rows that these traces make. A trace has the columns of the traces table.

    Taken are whole text answers of the teacher to text requests, of the fingerprints that have a
    tenth of such traces or more (the commonest always). When an input was answered several times,
    the answer given most often counts, the newer of two equally common ones.
    """
    left_out: Counter[str] = Counter()
    usable: list[_Candidate] = []
    for trace in traces:
        reason = why_not(trace)
        if reason:
            left_out[reason] += 1
        else:
            usable.append(_candidate(trace, shares))

    common = _common_fingerprints(usable)
    groups: defaultdict[str, list[_Candidate]] = defaultdict(list)
    for candidate in usable:
        if candidate.row.fingerprint in common:
            groups[candidate.row.input_hash].append(candidate)
        else:
            left_out["rare_fingerprint"] += 1

    chosen = []
    for group in groups.values():
        winner = _majority(group)
        chosen.append(winner)
        same = sum(canonical(c.row.target) == canonical(winner.row.target) for c in group)
        left_out["duplicate"] += same - 1
        left_out["contradicted"] += len(group) - same
    chosen.sort(key=lambda c: (c.start_time, c.row.trace_id))
    return Selection([c.row for c in chosen], {k: n for k, n in sorted(left_out.items()) if n})


def why_not(trace: Mapping[str, Any]) -> str:
    """Why a trace cannot be learnt from, in one word; empty when it can."""
    choices = _json(trace["output_messages"]) or []
    choice = choices[0] if len(choices) == 1 and isinstance(choices[0], dict) else {}
    faults = (
        ("not_from_teacher", trace["served_by"] != "teacher"),
        ("incomplete", trace["status_code"] != 200 or trace["outcome"] != Outcome.COMPLETE),
        ("tools", bool(trace.get("tool_definitions")) or _calls_something(choice)),
        ("not_text", not _is_text_conversation(_json(trace["input_messages"]))),
        ("several_choices", len(choices) > 1),
        ("not_finished", _json(trace["finish_reasons"]) != ["stop"]),
        ("no_answer", not text_of(choice.get("content")).strip()),
    )
    return next((reason for reason, is_so in faults if is_so), "")


def canonical(answer: str) -> str:
    """Equal for answers that say the same: JSON however it is laid out, text by its edges."""
    try:
        value = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return answer.strip()
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as JSON lines; readers see the whole file or none."""
    lines = (orjson.dumps(asdict(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    write_atomically(path, b"".join(lines))


def read_rows(path: Path) -> list[Row]:
    """The rows of a file that `write_rows` wrote."""
    return [Row(**line) for line in read_lines(path)]


def _candidate(trace: Mapping[str, Any], shares: SplitSettings) -> _Candidate:
    messages = _json(trace["input_messages"])
    of_input = trace.get("input_hash") or input_hash(messages)
    params = _json(trace["request_params"]) or {}
    row = Row(
        trace_id=str(trace["trace_id"]),
        input_hash=of_input,
        split=split_of(of_input, shares),
        fingerprint=trace["fingerprint"],
        model=str(trace.get("request_model") or params.get("model") or ""),
        messages=messages,
        params={name: params[name] for name in REASKED_PARAMS if params.get(name) is not None},
        target=text_of(_json(trace["output_messages"])[0].get("content")),
    )
    return _Candidate(_seconds(trace["start_time"]), row)


def _common_fingerprints(candidates: list[_Candidate]) -> set[str]:
    counts = Counter(c.row.fingerprint for c in candidates)
    if not counts:
        return set()
    top, _ = counts.most_common(1)[0]
    least = MIN_FINGERPRINT_SHARE * counts.total()
    return {top} | {name for name, count in counts.items() if count >= least}


def _majority(group: list[_Candidate]) -> _Candidate:
    """The newest of the candidates with the commonest answer, or with the newest such answer."""
    votes = Counter(canonical(c.row.target) for c in group)
    return max(group, key=lambda c: (votes[canonical(c.row.target)], c.start_time, c.row.trace_id))


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


def _json(value: Any) -> Any:
    """A column's value: some come as JSON text, some already as Python values."""
    return orjson.loads(value) if isinstance(value, str | bytes) else value


def _seconds(moment: Any) -> float:
    """A time column's value, as a number of seconds or as a datetime."""
    return float(moment.timestamp() if hasattr(moment, "timestamp") else moment)
