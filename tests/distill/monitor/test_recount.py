"""Which comparisons a change detector counts."""

from __future__ import annotations

import numpy as np
import pytest

from distill.monitor.detector import ChangeDetector
from distill.monitor.recount import BAD_AGAIN_S, GOOD_AGAIN_S, Recount


def counted(times_and_outcomes: list[tuple[float, bool]]) -> list[bool]:
    """Which of the observations of one group count. An outcome is True when it is bad."""
    recount, result = Recount(), []
    for at, bad in times_and_outcomes:
        due = recount.due("group", at)
        if due:
            recount.count("group", at, bad=bad)
        result.append(due)
    return result


@pytest.mark.parametrize(
    ("observations", "expected"),
    [
        ([(0, False), (1, False), (GOOD_AGAIN_S, False)], [True, False, True]),
        ([(0, True), (GOOD_AGAIN_S, True), (BAD_AGAIN_S, True)], [True, False, True]),
        # good, then bad: it has changed, which is said once
        ([(0, False), (9, True), (GOOD_AGAIN_S, True), (5000, True)], [True, False, True, False]),
        # the clock was set back
        ([(9000, False), (8999, False), (9000 - GOOD_AGAIN_S, False)], [True, False, True]),
    ],
)
def test_a_group_is_not_counted_again_too_soon(
    observations: list[tuple[float, bool]], expected: list[bool]
) -> None:
    assert counted(observations) == expected


@pytest.mark.parametrize("size", [1, 20, 50])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
@pytest.mark.slow
def test_groups_of_a_good_student_do_not_raise_the_alarm(size: int, correlation: float) -> None:
    """As often wrong as is tolerated, in conversations that go on for hours."""
    rng = np.random.default_rng([size, int(10 * correlation)])
    tolerated, run_length, groups = 0.1, 2000.0, 4000 // size
    alarms = observations = 0
    for _ in range(8):
        if correlation in (0.0, 1.0):
            chances = (
                np.full(groups, tolerated) if correlation == 0 else rng.random(groups) < tolerated
            )
        else:
            spread = 1 / correlation - 1
            chances = rng.beta(tolerated * spread, (1 - tolerated) * spread, groups)
        detector, recount = ChangeDetector(tolerated, run_length), Recount()
        begins = rng.uniform(0, 86_400, groups)
        moments = begins[:, None] + np.cumsum(rng.exponential(300, (groups, size)), axis=1)
        bad = rng.random((groups, size)) < chances[:, None]
        for place in np.argsort(moments, axis=None):
            group, turn = divmod(int(place), size)
            at = float(moments[group, turn])
            if recount.due(str(group), at):
                recount.count(str(group), at, bad=bool(bad[group, turn]))
                if detector.update(bool(bad[group, turn])):
                    alarms += 1
                    detector = ChangeDetector(tolerated, run_length)
                observations += 1
    expected = observations / run_length
    assert alarms <= expected + 2 * np.sqrt(expected) + 1
