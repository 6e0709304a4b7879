"""Ids and records."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
import uuid

import pytest

from store import records
from store.ids import new_id
from store.jsontext import to_json
from store.records import (
    RunState,
    Trace,
)
from tests.helpers.samples import a_trace


def test_ids_are_uuid_version_7() -> None:
    before = time.time_ns() // 1_000_000
    found = uuid.UUID(new_id())
    after = time.time_ns() // 1_000_000
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert before <= found.int >> 80 <= after


def test_ids_sort_by_time_as_text_and_as_numbers() -> None:
    ids = []
    for _ in range(50):
        ids.append(new_id())
        time.sleep(0.0011)  # they are in order from one millisecond to the next
    assert ids == sorted(ids)
    assert ids == sorted(ids, key=lambda i: uuid.UUID(i).int)


def test_ids_are_unique() -> None:
    assert len({new_id() for _ in range(20_000)}) == 20_000


def test_a_forked_process_makes_other_ids() -> None:
    new_id()  # from now on some are prepared
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "\n".join(new_id()[15:] for _ in range(300)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as ids:
        theirs = set(ids.read().split())
    os.waitpid(child, 0)
    assert len(theirs) == 300
    assert not theirs & {new_id()[15:] for _ in range(300)}


@pytest.mark.parametrize("state", RunState)
def test_a_run_has_ended_in_three_states(state: RunState) -> None:
    assert state.ended is (state in ("promoted", "rejected", "failed"))


RECORDS = [
    kind
    for kind in vars(records).values()
    if dataclasses.is_dataclass(kind) and kind.__module__ == records.__name__
]


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_records_are_frozen_and_closed(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(kind)
    assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(")


def test_a_trace_is_frozen_and_closed() -> None:
    assert Trace.__struct_config__.frozen
    with pytest.raises(AttributeError):
        a_trace().task = "another"  # type: ignore[misc]
    with pytest.raises(TypeError, match="colour"):
        a_trace(colour="blue")


@pytest.mark.parametrize(
    ("changes", "written"),
    [
        ({"task": "caf\u00e9"}, "caf\u00e9"),
        ({"task": "half a pair: \ud83d"}, "half a pair: \ufffd"),
    ],
)
def test_a_trace_is_written_as_utf_8_whatever_text_it_holds(
    changes: dict[str, str], written: str
) -> None:
    line = json.loads(to_json(a_trace(**changes, confidence=math.inf, input_tokens=2**70)))
    assert (line["task"], line["confidence"], line["input_tokens"]) == (written, None, 2**70)
