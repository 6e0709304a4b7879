"""When a task gets a run: the decision as a table."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.gate.gate import groups_needed
from distill.pipeline.due import MAX_BACKOFF_S, MIN_GROWTH, Due, Supply, due, supply_of, used_until
from distill.pipeline.elapsed import Elapsed
from store.records import (
    RunEvent,
    RunState,
)
from store.settings.tasks import TaskSettings

SETTINGS = TaskSettings(min_traces=200, cooldown_s=100)


def ended(*states: tuple[RunState, float]) -> list[RunEvent]:
    return [
        RunEvent(run_id=f"r{i}", seq=9, task="t", state=state, at=at)
        for i, (state, at) in enumerate(states)
    ]


@pytest.mark.parametrize(
    ("traces", "history", "now", "expected", "reason_part"),
    [
        (199, [], 0, False, "199 of 200"),
        (200, [], 0, True, "200 teacher traces"),
        (900, [(RunState.REJECTED, 1000.0)], 1099, False, "cooling down for another 1 s"),
        (900, [(RunState.REJECTED, 1000.0)], 1100, True, "due: 900 new"),
        (900, [(RunState.FAILED, 1000.0)], 1099, False, "1 failed"),
        (900, [(RunState.FAILED, 1000.0)], 1100, True, "due: 900 new"),
        (900, [(RunState.FAILED, 0.0), (RunState.FAILED, 1000.0)], 1199, False, "2 failed"),
        (900, [(RunState.FAILED, 0.0), (RunState.FAILED, 1000.0)], 1200, True, "due: 900 new"),
        (900, [(RunState.FAILED, 0.0), (RunState.PROMOTED, 1000.0)], 1100, True, "due: 900 new"),
        (10, [(RunState.PROMOTED, 0.0)], 1e9, False, "10 of 200"),
    ],
)
def test_when_a_task_is_due(traces, history, now, expected, reason_part) -> None:
    runs = ended(*history)
    ago = now - runs[-1].at if runs else math.inf
    verdict = due(settings=SETTINGS, new_traces=traces, ended=runs, ended_ago_s=ago)
    assert verdict.due is expected
    assert reason_part in verdict.reason


def test_a_paused_task_is_never_due() -> None:
    settings = SETTINGS.model_copy(update={"paused": True})
    assert due(settings=settings, new_traces=10**6, ended=[]).reason == "paused"


def test_a_pause_by_hand_prevents_runs() -> None:
    verdict = due(
        settings=SETTINGS,
        new_traces=900,
        ended=[],
        paused=True,
        retrain=True,
        usable_traces=900,
    )
    assert verdict == Due(False, "paused")


@pytest.mark.parametrize(
    ("ago_s", "expected", "reason_part"),
    [
        (99, False, "cooling down for another 1 s after the student was demoted"),
        (100, True, "due: 900 new"),
    ],
)
def test_a_demotion_starts_a_cooldown(ago_s: float, expected: bool, reason_part: str) -> None:
    verdict = due(
        settings=SETTINGS,
        new_traces=900,
        ended=ended((RunState.PROMOTED, 500.0)),
        ended_ago_s=600.0,
        demoted_ago_s=ago_s,
    )
    assert verdict.due is expected
    assert reason_part in verdict.reason


def test_the_longer_of_two_cooldowns_holds() -> None:
    failed = ended((RunState.FAILED, 1050.0), (RunState.FAILED, 1050.0))
    verdict = due(
        settings=SETTINGS, new_traces=900, ended=failed, ended_ago_s=50.0, demoted_ago_s=100.0
    )
    assert verdict.reason == "cooling down for another 150 s after 2 failed runs in a row"


@pytest.mark.parametrize(
    ("usable", "expected", "reason_part"), [(1, True, "by hand"), (0, False, "no teacher traces")]
)
def test_a_requested_run_does_not_wait_for_traces_or_cooldown(
    usable: int, expected: bool, reason_part: str
) -> None:
    verdict = due(
        settings=SETTINGS,
        new_traces=0,
        ended=ended((RunState.REJECTED, 999.0)),
        ended_ago_s=1.0,
        demoted_ago_s=1.0,
        retrain=True,
        usable_traces=usable,
    )
    assert verdict.due is expected
    assert reason_part in verdict.reason


@given(failures=st.integers(1, 60), now=st.floats(0, 1e6))
def test_the_back_off_after_failures_is_bounded(failures: int, now: float) -> None:
    history = ended(*[(RunState.FAILED, 0.0)] * failures)
    verdict = due(settings=SETTINGS, new_traces=500, ended=history, ended_ago_s=now)
    assert verdict.due or now <= MAX_BACKOFF_S


def test_a_failed_run_uses_up_no_traces() -> None:
    assert used_until([]) == 0
    history = ended((RunState.REJECTED, 5.0), (RunState.FAILED, 9.0))
    assert used_until(history) == 5.0


def test_traces_that_arrive_during_a_run_are_new() -> None:
    judged = RunEvent(
        run_id="r", seq=5, task="t", state=RunState.PROMOTED, at=90.0, detail={"used_until": 30.0}
    )
    assert used_until([judged]) == 30.0


# ---- groups ------------------------------------------------------------------------------------


def lacking(heldout: int, run_id: str = "r", **changes: Any) -> RunEvent:
    """The end of a run with too few groups."""
    supply = {"heldout": heldout, "calibration": 20, "attempt": 1, **changes}
    return RunEvent(
        run_id=run_id,
        seq=1,
        task="t",
        state=RunState.REJECTED,
        at=1000.0,
        detail={"supply": supply},
    )


NEEDED = groups_needed(SETTINGS.gate, 1, calibration=20)


@pytest.mark.parametrize(
    ("new", "expected", "reason"),
    [
        (
            220,
            False,
            f"waiting for groups: 22 held-out groups, {NEEDED} needed; that takes about "
            f"{20 * (NEEDED - 22)} new teacher traces, and 220 have come",
        ),
        (20 * (NEEDED - 22) - 1, False, "waiting for groups: 22 held-out groups"),
        (20 * (NEEDED - 22), True, "due: "),
    ],
)
def test_a_run_with_too_few_groups_waits_for_groups_and_not_for_traces(
    new: int, expected: bool, reason: str
) -> None:
    """22 groups came with 440 traces: twenty traces of a conversation, say."""
    history = [lacking(22)]
    supply = supply_of(history, SETTINGS, lambda _: 440)
    verdict = due(settings=SETTINGS, new_traces=new, ended=history, supply=supply)
    assert verdict.due is expected
    assert verdict.reason.startswith(reason)


def test_few_missing_groups_need_fewer_traces_than_a_first_run() -> None:
    supply = supply_of([lacking(NEEDED - 2)], SETTINGS, lambda _: 200)
    assert supply is not None
    assert due(settings=SETTINGS, new_traces=supply.traces, ended=[], supply=supply).due
    assert supply.traces < SETTINGS.min_traces


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((40, 800), (50, 1000), 10 / 200),
        ((40, 400), (40, 800), MIN_GROWTH * 40 / 800),  # the same conversations went on
        ((40, 800), (50, 800), 50 / 800),  # nothing to compare
    ],
    ids=["as before", "no new groups", "no more traces"],
)
def test_what_came_since_the_run_before_says_how_many_groups_to_expect(
    first: tuple[int, int], second: tuple[int, int], expected: float
) -> None:
    traces = {"one": first[1], "two": second[1]}
    history = [lacking(first[0], "one"), lacking(second[0], "two")]
    supply = supply_of(history, SETTINGS, traces.__getitem__)
    assert supply is not None
    assert supply.per_trace == pytest.approx(expected)


def test_a_lower_threshold_makes_a_waiting_task_due() -> None:
    settings = TaskSettings.model_validate({"gate": {"threshold": 0.8}})
    supply = supply_of([lacking(60)], settings, lambda _: 400)
    assert supply is not None
    assert supply.traces == 0
    assert due(settings=settings, new_traces=0, ended=[], supply=supply).due


@pytest.mark.parametrize(
    "history",
    [
        [],
        [RunEvent(run_id="r", seq=9, task="t", state=RunState.PROMOTED, at=1.0)],
        [lacking(9), RunEvent(run_id="s", seq=9, task="t", state=RunState.REJECTED, at=1.0)],
    ],
    ids=["no run", "promoted", "judged since"],
)
def test_only_a_run_that_lacked_groups_makes_the_next_wait_for_them(
    history: list[RunEvent],
) -> None:
    assert supply_of(history, SETTINGS, lambda _: 1) is None


def test_a_failed_run_does_not_hide_that_groups_are_missing() -> None:
    failed = RunEvent(run_id="s", seq=9, task="t", state=RunState.FAILED, at=1.0)
    supply = supply_of([lacking(22), failed], SETTINGS, lambda _: 440)
    assert supply == Supply(heldout=22, needed=NEEDED, per_trace=22 / 440)


# ---- the clock ---------------------------------------------------------------------------------


def test_a_clock_that_is_set_changes_no_cooldown() -> None:
    clock = {"day": 1000.0, "steady": 50.0}
    elapsed = Elapsed(lambda: clock["day"], lambda: clock["steady"])
    assert elapsed.since("run", 990.0) == 10
    for day in (-2600.0, 1000.0, 4600.0):  # set back by an hour, and forward
        clock = {"day": day, "steady": clock["steady"] + 5}
        assert elapsed.since("run", 990.0) == clock["steady"] - 40
    assert elapsed.since("from the future", 9000.0) == 0
    clock["steady"] += 7
    assert elapsed.since("from the future", 9000.0) == 7


def test_after_a_restart_an_event_is_dated_by_the_time_of_day() -> None:
    assert Elapsed(lambda: 1100.0, lambda: 3.0).since("run", 1000.0) == 100
