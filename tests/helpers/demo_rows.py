"""Rows, traces and teacher clients of the demo's tasks, for tests of distilling."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import orjson

from demo.tasks.tasks import TASKS
from demo.teacher.teacher import MODEL
from distill.amplify.policy import LengthRange, TaskPolicy
from distill.dataset.rows import Row
from distill.teacher.client import TeacherClient
from store.chat.shape import fingerprint, input_hash
from store.database.traces import logged_exchange
from store.ids import new_id
from store.records import LoggedExchange, TeacherCall

RUN = "018f0000-0000-7000-8000-000000000001"
LABELS = "review-sentiment"
JSON = "ticket-triage"
EXTRACTION = "order-extraction"


def rows_of(task: str, count: int = 60, *, seed: int = 1, **changes: Any) -> list[Row]:
    """Train rows of a demo task, each with its right answer."""
    return [a_row(task, text, **changes) for text in islice(TASKS[task].texts(seed), count)]


def a_row(task: str, text: str, **changes: Any) -> Row:
    messages = TASKS[task].messages(text)
    values: dict[str, Any] = {
        "trace_id": new_id(),
        "input_hash": input_hash(messages),
        "split": "train",
        "fingerprint": fingerprint({"messages": messages, "model": MODEL}),
        "model": MODEL,
        "messages": messages,
        "params": {},
        "target": TASKS[task].answer(text),
    }
    return Row(**{**values, **changes})


def a_policy(**changes: Any) -> TaskPolicy:
    values: dict[str, Any] = {
        "task_description": "Says what a text is.",
        "input_format": "A text.",
        "output_format": "A word.",
        "reasoning_style": "None.",
        "key_constraints": ["one word"],
        "difficulty": "easy",
        "reasoning_patterns": ["by its words"],
        "examples_summary": "Texts.",
        "input_length_range": LengthRange(minimum=1, maximum=300),
        "output_length_range": LengthRange(minimum=1, maximum=100),
    }
    return TaskPolicy(**{**values, **changes})


def a_client(
    base_url: str,
    *,
    record: Callable[[TeacherCall], None] = lambda call: None,
    budget: int = 10_000_000,
    key: str | None = "sk-very-secret",
) -> TeacherClient:
    return TeacherClient(
        base_url=base_url,
        api_key=key,
        model=MODEL,
        record=record,
        run_id=RUN,
        task="a-task",
        token_budget=budget,
    )


def an_exchange(
    text: str = "where is my parcel",
    answer: str = "delivery",
    *,
    at: float = 1000.0,
    system: str = "Sort it.",
    **changes: Any,
) -> LoggedExchange:
    """A logged exchange as the database returns it. `changes`: other values of its columns."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    values: dict[str, Any] = {
        "trace_id": new_id(),
        "start_time": at,
        "served_by": "teacher",
        "status_code": 200,
        "outcome": "complete",
        "request_model": "gpt-big",
        "request_params": '{"model": "gpt-big"}',
        "tool_definitions": None,
        "input_messages": orjson.dumps(messages).decode(),
        "output_messages": orjson.dumps([{"role": "assistant", "content": answer}]).decode(),
        "finish_reasons": ["stop"],
        "confidence": None,
        "input_hash": input_hash(messages),
        "fingerprint": fingerprint({"messages": messages, "model": "gpt-big"}),
    }
    return logged_exchange({**values, **changes})


def hashes(rows: Iterable[Row]) -> set[str]:
    return {row.input_hash for row in rows}
