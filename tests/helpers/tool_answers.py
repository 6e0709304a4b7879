"""Answers of a teacher and a student that call the functions of `tool_task`."""

from __future__ import annotations

import json
from typing import Any

import orjson

LEARNED = '{"name": "cancel", "arguments": {"order_id": "A-1"}}'
OTHER = '{"name": "cancel", "arguments": {"order_id": "A-2"}}'
WORDS = '{"content": "Which order?"}'


def as_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


def output_messages(*calls: dict[str, Any], content: str | None = None) -> str:
    return as_json([{"role": "assistant", "content": content, "tool_calls": list(calls)}])


def calling(*calls: tuple[str, dict[str, Any]]) -> str:
    made = [{"name": name, "arguments": arguments} for name, arguments in calls]
    return json.dumps(made[0] if len(made) == 1 else made)
