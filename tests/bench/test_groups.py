"""The comparison of groups and rows as units: it sees what grouping is for."""

from __future__ import annotations

import pytest

from bench.groups import by_groups, by_rows, compare, exchanges
from demo.backtest.logs import LogRow
from store.hashing import uniform
from store.settings.tasks import TaskSettings

WORDS = [
    "amber",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "harbor",
    "island",
    "jungle",
    "kettle",
    "lagoon",
    "meadow",
]
SETTINGS = TaskSettings.model_validate({"gate": {"threshold": 0.9}})


def words_of(name: str, count: int) -> list[str]:
    return [WORDS[int(uniform(f"{name} {k}".encode()) * len(WORDS))] + str(k) for k in range(count)]


def tickets(entities: int, updates: int) -> list[LogRow]:
    """Each entity has a text of its own and a label that follows from nothing."""
    rows = []
    for entity in range(entities):
        label = "red" if uniform(f"label {entity}".encode()) < 0.5 else "blue"
        own = " ".join(f"{word}{entity}" for word in words_of(str(entity), 12))
        for update in range(updates):
            content = f"{own} update {update}"
            rows.append(LogRow([{"role": "user", "content": content}], label))
    return rows


@pytest.mark.slow
def test_updates_of_one_entity_lie_in_one_split_and_are_apart_by_rows() -> None:
    log = exchanges(tickets(40, 5), list(range(200)))
    together, apart = by_groups(log, SETTINGS), by_rows(log, SETTINGS)
    assert sum(together.groups.values()) == 40
    assert sum(apart.groups.values()) == 200
    assert len(together.rows) == len(apart.rows) == 200


@pytest.mark.slow
def test_what_cannot_be_learned_is_certified_by_rows_and_not_by_groups() -> None:
    [found] = compare(tickets(100, 8), [0.9], 2, SETTINGS)
    assert found["rows"]["passed"] == 1
    assert found["rows"]["coverage"] > 0.9
    assert found["groups"]["passed"] == 0
    assert found["groups"]["units"] == 100
    assert found["no_copies"]["passed"] == 0
    assert found["cost_to_rows"]["mean"] > 0.9
    assert found["cost_to_no_copies"]["mean"] == 0
