"""Reads a file of logged answers and lays it out: traffic, pool and test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from store.chat.shape import Messages, input_hash, text_of
from store.errors import BacktestError
from store.jsontext import JsonObject

TEST_SHARE = 0.2  # of the file, from its end, when there is no test file
POOL_SHARE = 0.2  # of what is left, when no limit says how much is traffic


@dataclass(frozen=True, slots=True)
class LogRow:
    """One logged request and its answer."""

    messages: Messages
    answer: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The rows by their role, each in the order of its file.

    Every row has the answer that the first row with the same messages has.
    """

    traffic: list[LogRow]  # sent before the run
    pool: list[LogRow]  # source of the replay teacher's synthetic inputs
    test: list[LogRow]  # sent after the run
    duplicates: int  # rows whose messages an earlier row has, in whatever part
    conflicts: int  # of those, with another answer than the earlier row's
    left_out: int  # rows kept out of the pool: their input is in traffic, test or the pool already
    test_seen: int  # test rows whose input was in the traffic


def read_rows(path: Path) -> list[LogRow]:
    """The rows of a JSONL file: `{"messages": […], "answer": "…"}`, or OpenAI fine-tuning lines.

    Raises BacktestError that names the file and the line, never its content.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise BacktestError(f"{path}: cannot be read ({error.strerror})") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(_row(line))
            except ValueError as error:
                raise BacktestError(f"{path} line {number}: {error}") from None
    if not rows:
        raise BacktestError(f"{path}: no rows; each line is a JSON object with messages and answer")
    return rows


def lay_out(
    rows: list[LogRow], *, test: list[LogRow] | None = None, limit: int | None = None
) -> Layout:
    """Deals the rows of a file out, in the order of the file.

    Without `test`, the last 20 % of the rows are the test. Of the others the first `limit` are
    traffic and the rest is the pool; without `limit` the first 80 % are traffic. The pool keeps
    one row an input, and none whose input is in traffic or test.
    """
    if test is None:
        first_test = len(rows) - max(1, round(len(rows) * TEST_SHARE))
        rows, test = rows[:first_test], rows[first_test:]
    for_pool = round(len(rows) * POOL_SHARE) if limit is None else max(len(rows) - limit, 0)

    answers: dict[str, str] = {}
    duplicates = conflicts = 0
    settled: list[LogRow] = []
    for row in (*rows, *test):
        key = messages_key(row.messages)
        if key in answers:
            duplicates += 1
            conflicts += row.answer != answers[key]
        first = answers.setdefault(key, row.answer)
        settled.append(LogRow(row.messages, first))

    tests, settled = settled[len(rows) :], settled[: len(rows)]
    traffic, rest = settled[: len(rows) - for_pool], settled[len(rows) - for_pool :]
    sent = _hashes(traffic)
    taken = sent | _hashes(tests)
    pool: dict[str, LogRow] = {}
    for row in rest:
        of_input = input_hash(row.messages)
        if of_input not in taken:
            pool.setdefault(of_input, row)
    return Layout(
        traffic=traffic,
        pool=list(pool.values()),
        test=tests,
        duplicates=duplicates,
        conflicts=conflicts,
        left_out=len(rest) - len(pool),
        test_seen=sum(input_hash(row.messages) in sent for row in tests),
    )


def messages_key(messages: Iterable[JsonObject]) -> str:
    """Equal for the same conversation, however its text is wrapped (a string or text parts)."""
    turns = []
    for message in messages:
        content = message.get("content")
        other = {k: v for k, v in message.items() if k not in ("role", "content") and v is not None}
        parts = content if isinstance(content, list) else []
        other_parts = [p for p in parts if not (isinstance(p, dict) and p.get("type") == "text")]
        role = "system" if message.get("role") == "developer" else message.get("role")
        turns.append([role, text_of(content), other_parts, other])
    return orjson.dumps(turns, option=orjson.OPT_SORT_KEYS).decode()


def _hashes(rows: list[LogRow]) -> set[str]:
    return {input_hash(row.messages) for row in rows}


def _row(line: bytes) -> LogRow:
    """Raises ValueError with the fault of the line."""
    try:
        raw = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ValueError("not valid JSON") from None
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    messages = raw.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages is not a list with something in it")
    if raw.get("tools") or raw.get("functions"):
        raise ValueError("has tools; only text answers can be replayed")
    if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages):
        raise ValueError("not every message is an object with a role")
    if "answer" in raw:
        return LogRow(_without_weights(messages), _answer(raw["answer"], "answer"))
    if messages[-1]["role"] != "assistant":
        raise ValueError("no answer, and the last message is not the assistant's")
    if len(messages) == 1:
        raise ValueError("nothing before the assistant's message")
    answer = _answer(text_of(messages[-1].get("content")), "the assistant's message")
    return LogRow(_without_weights(messages[:-1]), answer)


def _answer(answer: Any, name: str) -> str:
    if not isinstance(answer, str):
        raise ValueError(f"{name} is not a string")
    if not answer.strip():
        raise ValueError(f"{name} has no text")
    return answer


def _without_weights(messages: Messages) -> Messages:
    """Fine-tuning lines may weigh a message; a request may not."""
    return [{k: v for k, v in m.items() if k != "weight"} for m in messages]
