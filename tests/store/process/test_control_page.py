"""What `serve` and the proxies make of the control plane's page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from store.process.control_page import (
    FIRST_BEAT_AFTER_S,
    HUNG_AFTER_S,
    SLOW_QUERY_S,
    STUCK_AFTER_S,
    USUAL_START_S,
    ControlPage,
    ControlState,
)

WELL = ControlState(
    pid=7, silent_s=0.1, collecting=True, set_aside=0, skipped=0, query_s=0.0, first=False
)


@pytest.mark.parametrize(
    ("changes", "alive", "answers", "hung"),
    [
        ({}, True, True, None),
        ({"pid": 0}, True, True, None),  # nobody has started one
        ({"silent_s": 2.0}, False, False, None),
        ({"silent_s": HUNG_AFTER_S + 1}, False, False, "has not moved for 21 s"),
        ({"query_s": SLOW_QUERY_S}, True, False, None),
        ({"query_s": STUCK_AFTER_S + 1}, True, False, "waits for a query for 601 s"),
        ({"starting": True, "first": True, "silent_s": 5.0}, True, True, None),
        ({"starting": True, "silent_s": 5.0}, False, False, None),  # one was there before
        ({"starting": True, "first": True, "silent_s": USUAL_START_S + 1}, False, False, None),
        (
            {"starting": True, "first": True, "silent_s": FIRST_BEAT_AFTER_S + 1},
            False,
            False,
            "has not begun to work within 61 s",
        ),
    ],
)
def test_a_control_plane_that_hangs_is_told_from_one_that_is_busy_or_starting(
    changes, alive, answers, hung
) -> None:
    state = replace(WELL, **changes)
    assert (state.alive, state.answers, state.hung) == (alive, answers, hung)


@pytest.fixture
def page() -> Iterator[ControlPage]:
    page = ControlPage.create()
    yield page
    page.close()


def test_one_that_hangs_before_its_first_heartbeat_is_known_by_its_start(page: ControlPage) -> None:
    assert (page.state.pid, page.state.starting) == (0, False)
    page.started(41)
    assert (page.state.pid, page.state.starting, page.state.first) == (41, True, True)
    page.beat(3.0)
    assert not page.state.starting
    page.started(42)
    state = page.state
    assert (state.pid, state.starting, state.first, state.query_s) == (42, True, False, 0.0)
    assert state.silent_s < 60


def test_a_fault_of_any_length_reads_back(page: ControlPage) -> None:
    for fault in ("", "short", "größer", "x" * 5000, ""):
        page.say(fault)
        assert page.state.fault == fault[:1024]
    assert page.state.pid == 0  # the numbers are untouched
