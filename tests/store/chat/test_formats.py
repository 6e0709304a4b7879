"""Answers against response formats and schemas; an answer that cannot be checked does not match."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from store.chat import formats as output_format
from store.chat.formats import MAX_CHECKS, meets_format, meets_schema, meets_schema_now

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def strict(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}


@pytest.mark.parametrize(
    ("asked", "text", "met"),
    [
        (None, "any", True),
        ({"type": "text"}, "any", True),
        ({"type": "json_object"}, "{}", True),
        ({"type": "json_object"}, ' {"a": 1}\n', True),
        ({"type": "json_object"}, "[]", False),
        ({"type": "json_object"}, '{"a": 1} {"b": 2}', False),
        ({"type": "json_object"}, '{"a": 1} Done.', False),
        ({"type": "json_object"}, '```json\n{"a": 1}\n```', False),
        ({"type": "json_object"}, '{"a": NaN}', False),
        ({"type": "json_object"}, '{"a": 1e999}', False),
        ({"type": "json_object"}, '{"a": "\\ud83d"}', False),
        ({"type": "json_object"}, '{"a": {"b": 1, "b": 1}}', False),  # readers take one or another
        (strict({"type": "array"}), "[1]", True),
        (strict({"type": "integer"}), "123456789012345678901234567890", True),
        (strict({"type": "object"}), "[1]", False),
        (strict(True), "{}", False),
        (strict(None), "{}", False),
        ({"type": "json_schema"}, "{}", False),
        ({"type": "json_schema", "json_schema": []}, "{}", False),
        ({"type": "grammar"}, "{}", False),
        ({}, "{}", True),
    ],
)
async def test_each_response_format_is_checked(
    asked: dict[str, Any] | None, text: str, met: bool
) -> None:
    assert await meets_format(text, asked) is met


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "object", "required": ["a"]}, {"a": 1}, {}),
        ({"type": "object", "additionalProperties": False}, {}, {"a": 1}),
        ({"enum": ["a", None]}, None, "b"),
        ({"const": 1}, 1, True),
        ({"type": ["string", "null"]}, None, 1),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, 6, 4),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, 1, "1"),
        (
            {
                "$defs": {"t": {"items": {"$ref": "#/$defs/t"}, "type": "array"}},
                "$ref": "#/$defs/t",
            },
            [[], [[]]],
            [[1]],
        ),
        ({"prefixItems": [{"type": "string"}]}, ["a"], [1]),
        ({"$schema": DRAFT_7, "items": [{"type": "string"}]}, ["a", 1], [1]),
        ({"$schema": "https://example.org/unknown", "type": "string"}, "a", 1),
        ({"pattern": "^[a-z]+$"}, "abc", "ab1"),
        ({"format": "date"}, "2024-02-29", "2023-02-29"),
        ({"format": "date-time"}, "2024-02-29T23:59:60.5+02:00", "2024-02-30T10:00:00Z"),
        ({"format": "date-time"}, "2024-02-29 10:00:00Z", "2024-02-29T10:00:00"),
        ({"format": "time"}, "10:00:00Z", "24:00:00Z"),
        ({"format": "duration"}, "P1DT2H", "PT"),
        ({"format": "email"}, "a@example.org", "a"),
        ({"format": "hostname"}, "a-1.example", "-a.example"),
        ({"format": "ipv4"}, "127.0.0.1", "127.0.0.256"),
        ({"format": "ipv6"}, "::1", "::g"),
        ({"format": "uuid"}, "018f0000-0000-7000-8000-000000000001", "018f"),
        ({"format": "time"}, 5, "5"),  # of strings alone
    ],
)
async def test_each_schema_is_checked(schema: dict[str, Any], good: Any, bad: Any) -> None:
    assert await meets_schema(good, schema)
    assert not await meets_schema(bad, schema)
    assert meets_schema_now(good, schema)
    assert not meets_schema_now(bad, schema)


async def test_an_unknown_string_format_is_ignored() -> None:
    assert await meets_schema("x", {"type": "string", "format": "phone"})


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/$defs/nothing"},
        {"not": {"$ref": "https://example.org/schema.json"}},
        {"$ref": "#"},
        {"type": "text"},
        {"type": 7},
        {"properties": []},
        {"required": "a"},
        {"enum": 5},
        {"minimum": "1"},
        {"pattern": "("},
        {"pattern": "\\p{L}"},
        {"$schema": ["x"]},
        {"maximum": 10**30},  # it cannot be JSON
    ],
)
@pytest.mark.parametrize("value", [{}, {"a": 1}, [], "a", 1, None])
async def test_an_answer_that_cannot_be_checked_does_not_match(
    schema: dict[str, Any], value: Any
) -> None:
    assert not await meets_schema(value, schema)


@pytest.fixture
def usual_recursion() -> Iterator[None]:
    """The limit that a worker has. Libraries of other tests may have raised it here."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000)
    yield
    sys.setrecursionlimit(before)


async def test_deeply_nested_values_do_not_match_and_do_not_crash(
    usual_recursion: None,
) -> None:
    schema = {"$defs": {"t": {"items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    value: list[Any] = []
    for _ in range(900):
        value = [value]
    assert not await meets_schema(value, schema)
    assert not await meets_format("[" * 5000 + "]" * 5000, strict(schema))


async def test_a_schema_is_compiled_once_and_some_are_kept() -> None:
    schema = {"type": "object", "title": "once", "required": ["a"]}
    await meets_schema({}, schema)
    before = len(output_format._checks)
    began = time.perf_counter()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await asyncio.sleep(0)
    turns = 0
    for _ in range(200):
        assert await meets_schema({"a": 1}, dict(reversed(schema.items())))
    assert turns == 0  # checked in the event loop, without a thread
    beside.cancel()
    assert len(output_format._checks) == before
    assert time.perf_counter() - began < 5
    for number in range(MAX_CHECKS + 5):
        meets_schema_now(1, {"minimum": number})
    assert len(output_format._checks) == MAX_CHECKS
    assert await meets_schema({"a": 1}, schema)
