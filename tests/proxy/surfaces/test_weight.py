"""How much memory an answer takes while it is read."""

from __future__ import annotations

import tracemalloc
from typing import Any

import orjson
import pytest

from proxy.http.json_body import most_values
from proxy.surfaces.weight import TooLarge, check_parsed, weight

VALUES = [
    "x" * 5_000,
    [[] for _ in range(2_000)],
    [{"a": number} for number in range(2_000)],
    {f"key {number}": [number / 7, None, True, "ä" * 20] for number in range(1_000)},
]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.slow
def test_a_weight_is_about_the_memory_that_a_value_takes(value: Any) -> None:
    raw = orjson.dumps(value)
    tracemalloc.start()
    try:
        parsed = orjson.loads(raw)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / 2 <= weight(parsed) <= taken * 2 + 1_000


def test_a_value_of_any_depth_has_a_weight() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    assert weight(value) > 100_000


def count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(count, value.values()))
    return 1 + sum(map(count, value)) if isinstance(value, list) else 1


@pytest.mark.parametrize("value", [*VALUES, 1, [], {}, [[[]]], {"a,[{": '",[{\\'}, ["\\", ","]])
def test_no_text_has_more_values_than_are_counted(value: Any) -> None:
    assert count(value) <= most_values(orjson.dumps(value))


@pytest.mark.slow
def test_json_of_millions_of_values_is_not_parsed() -> None:
    with pytest.raises(TooLarge):
        check_parsed(b"[" + b"[]," * 4_000_000 + b"1]")
    check_parsed(b'["' + b"x" * 20_000_000 + b'"]')
