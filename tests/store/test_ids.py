"""Ids: they sort by their time, and after one that they must follow."""

from __future__ import annotations

from uuid import UUID

import pytest

from store.ids import later_id, new_id


def test_an_id_after_another_sorts_after_it_also_when_the_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last = new_id()
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000)
    for _ in range(50):
        later = later_id(last)
        assert later > last
        assert UUID(later).version == 7
        last = later
    assert UUID(later_id(None)).version == 7
