"""The back-off: doubled delays, a limit, and a fresh start after a success."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.backoff import Backoff, backoff_s


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 2.0), (1, 2.0), (2, 4.0), (5, 32.0), (6, 60.0), (10**9, 60.0)]
)
def test_the_delay_doubles_with_each_failure_up_to_the_limit(failures: int, seconds: float) -> None:
    assert backoff_s(failures, first_s=2.0, max_s=60.0) == seconds


@given(failures=st.integers(1, 200), first_s=st.floats(0.01, 100), max_s=st.floats(100, 1e6))
def test_the_timer_and_the_formula_agree(failures: int, first_s: float, max_s: float) -> None:
    backoff = Backoff(first_s=first_s, max_s=max_s, clock=Clock())
    delays = [backoff.failed() for _ in range(failures)]
    assert delays[-1] == pytest.approx(backoff_s(failures, first_s=first_s, max_s=max_s))


def test_the_first_try_does_not_wait() -> None:
    assert Backoff(first_s=1, max_s=60, clock=Clock()).remaining_s == 0


def test_the_remaining_delay_follows_the_clock() -> None:
    clock = Clock()
    backoff = Backoff(first_s=4, max_s=60, clock=clock)
    assert backoff.failed() == backoff.remaining_s == 4
    clock.now += 3
    assert backoff.remaining_s == 1
    clock.now += 3
    assert backoff.remaining_s == 0


def test_a_delay_is_at_least_as_long_as_asked_for_and_at_most_the_limit() -> None:
    backoff = Backoff(first_s=2, max_s=60, clock=Clock())
    assert backoff.failed(10) == 10
    assert backoff.failed(10) == 20
    assert backoff.failed(500) == 60


def test_a_success_resets_the_delay_but_does_not_end_one_under_way() -> None:
    backoff = Backoff(first_s=1, max_s=60, clock=Clock())
    for _ in range(4):
        backoff.failed()
    backoff.succeeded()
    assert backoff.remaining_s == 8
    assert backoff.failed() == 1


def test_a_clock_that_is_set_back_does_not_prolong_a_delay() -> None:
    now = 10_000.0
    backoff = Backoff(first_s=2, max_s=60, clock=lambda: now)
    backoff.failed()
    backoff.succeeded()
    now -= 3_600
    assert backoff.remaining_s == 2
    now += 2
    assert backoff.remaining_s == 0
