"""When a task gets a run: the decision as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.pipeline.due import MAX_BACKOFF_S, Due, due, used_until
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
    verdict = due(settings=SETTINGS, new_traces=traces, ended=ended(*history), now=now)
    assert verdict.due is expected
    assert reason_part in verdict.reason


def test_a_paused_task_is_never_due() -> None:
    settings = SETTINGS.model_copy(update={"paused": True})
    assert due(settings=settings, new_traces=10**6, ended=[], now=0).reason == "paused"


def test_a_pause_by_hand_prevents_runs() -> None:
    verdict = due(
        settings=SETTINGS,
        new_traces=900,
        ended=[],
        now=0,
        paused=True,
        retrain=True,
        usable_traces=900,
    )
    assert verdict == Due(False, "paused")


@pytest.mark.parametrize(
    ("now", "expected", "reason_part"),
    [
        (1099, False, "cooling down for another 1 s after the student was demoted"),
        (1100, True, "due: 900 new"),
    ],
)
def test_a_demotion_starts_a_cooldown(now: float, expected: bool, reason_part: str) -> None:
    history = ended((RunState.PROMOTED, 500.0))
    verdict = due(settings=SETTINGS, new_traces=900, ended=history, now=now, demoted_at=1000.0)
    assert verdict.due is expected
    assert reason_part in verdict.reason


def test_the_longer_of_two_cooldowns_holds() -> None:
    failed = ended((RunState.FAILED, 1050.0), (RunState.FAILED, 1050.0))
    verdict = due(settings=SETTINGS, new_traces=900, ended=failed, now=1100, demoted_at=1000.0)
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
        now=1000,
        demoted_at=999.0,
        retrain=True,
        usable_traces=usable,
    )
    assert verdict.due is expected
    assert reason_part in verdict.reason


@given(failures=st.integers(1, 60), now=st.floats(0, 1e6))
def test_the_back_off_after_failures_is_bounded(failures: int, now: float) -> None:
    history = ended(*[(RunState.FAILED, 0.0)] * failures)
    verdict = due(settings=SETTINGS, new_traces=500, ended=history, now=now)
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
