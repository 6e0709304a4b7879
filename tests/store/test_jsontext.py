"""JSON as this project writes it: always JSON, always one line, always UTF-8."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.ids import new_id
from store.jsontext import read_json, to_json, to_json_line
from tests.helpers.samples import a_run_event, a_trace

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(values)
def test_any_value_becomes_one_line_of_json(value: Any) -> None:
    line = to_json(value)
    assert b"\n" not in line
    orjson.loads(line)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("text", ["plain", "half \ud83d"])
def test_values_that_json_cannot_hold_become_null(number: float, text: str) -> None:
    found = orjson.loads(to_json(a_trace(confidence=number, input_messages=text)))
    assert found["confidence"] is None
    assert found["input_messages"] == text.replace("\ud83d", "\ufffd")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{} {}",
        "{} and more",
        "\ufeff{}",
        "NaN",
        "[Infinity]",
        "1e999",
        '"\\ud83d"',
        '"half \ud83d"',
        '{"a": 1, "a": 1}',
        '[{"a": {"b": 1, "\\u0062": 2}}]',
        "[" * 5000 + "]" * 5000,
        "1" * 5000,
    ],
)
def test_ambiguous_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_json(text)


def test_numbers_are_read_exactly() -> None:
    assert read_json(' {"id": 123456789012345678901234, "x": [1.5, -0]}\n') == {
        "id": 123456789012345678901234,
        "x": [1.5, 0],
    }


@given(values)
@pytest.mark.slow
def test_written_json_can_be_read(value: Any) -> None:
    line = to_json(value).decode()
    assert read_json(line) == json.loads(line)


def test_a_record_is_one_line() -> None:
    event = a_run_event(new_id(), detail={"note": "two\nlines", "loss": float("nan")})
    line = to_json_line(event)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert b'"loss":null' in line
    assert to_json_line(replace(event, reason="\ud83d")) == to_json_line(
        replace(event, reason="\ufffd")
    )
