"""Ids and records."""

from __future__ import annotations

import dataclasses
import os
import time
import uuid

import mypy.api
import pytest

from store import records
from store.ids import new_id
from store.records import (
    RunState,
    Trace,
)


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


def test_ids_are_not_given_twice() -> None:
    assert len({new_id() for _ in range(20_000)}) == 20_000


def test_a_forked_process_has_ids_of_its_own() -> None:
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
    if kind is not Trace:  # frozen for mypy alone, see there
        assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert "__slots__" in vars(kind)
    assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(")


@pytest.mark.parametrize(
    ("statement", "passes"), [("trace.task = 'another'", False), ("print(trace.task)", True)]
)
def test_a_trace_is_frozen_for_the_check_of_types(statement: str, passes: bool) -> None:
    code = f"from store.records import Trace\ndef look(trace: Trace) -> None:\n    {statement}\n"
    options = ["--config-file=", "--follow-imports=silent", "--ignore-missing-imports"]
    said, _, status = mypy.api.run([*options, "-c", code])
    assert (status == 0) is passes, said
    assert passes or "read-only" in said
