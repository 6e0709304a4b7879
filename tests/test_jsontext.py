"""JSON as this project writes it: always JSON, always one line, always UTF-8."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import a_trace

from store.jsontext import to_json

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
def test_what_json_cannot_hold_is_null(number: float, text: str) -> None:
    found = orjson.loads(to_json(a_trace(confidence=number, input_messages=text)))
    assert found["confidence"] is None
    assert found["input_messages"] == text.replace("\ud83d", "\ufffd")
