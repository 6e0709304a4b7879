"""The change detector: its guarantee, and its delay until an alarm."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.simulate_detector import NEVER, Shipped, alarms, cusum_threshold, delays
from distill.monitor import detector
from distill.monitor.detector import ChangeDetector, calibrate, worst_case_delay

RATES = st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.45])
STREAM = st.lists(st.booleans(), max_size=200)


def detector_after(
    stream: list[bool], tolerated: float = 0.05, run_length: float = 5000
) -> ChangeDetector:
    seen = ChangeDetector(tolerated, run_length)
    for bad in stream:
        seen.update(bad)
    return seen


# ---- the guarantee -----------------------------------------------------------------------------


@pytest.mark.parametrize("run_length", [100, 5000, 100_000])
@pytest.mark.parametrize("tolerated", [0.001, 0.005, 0.02, 0.05, 0.1, 0.3, 0.45, 0.8])
@pytest.mark.slow
def test_the_proven_hazards_add_up_to_at_most_one_in_a_run_length(
    tolerated: float, run_length: float
) -> None:
    bets = calibrate(tolerated, run_length)
    assert 0 < sum(bet.hazard for bet in bets) <= 1 / run_length
    assert all(tolerated < bet.alternative < 1 for bet in bets)


@pytest.mark.parametrize(("tolerated", "run_length"), [(0.05, 100), (0.2, 300), (0.02, 1000)])
@pytest.mark.slow
def test_each_bet_keeps_its_proven_hazard_in_simulation(
    tolerated: float, run_length: float
) -> None:
    """Each bet alone: no more alarms within a run length than its hazard allows."""
    rng, rounds, length = np.random.default_rng(1), 2000, int(run_length)
    for bet in calibrate(tolerated, run_length):
        streams = Shipped(rounds, tolerated, [bet])
        early = (alarms(streams, rounds, tolerated, rng, length) < NEVER).mean()
        allowed = 1 - (1 - bet.hazard) ** length
        assert early <= allowed + 3 * (allowed * (1 - allowed) / rounds) ** 0.5 + 1 / rounds


@pytest.mark.parametrize(
    ("tolerated", "run_length"), [(0.05, 100), (0.05, 500), (0.3, 500), (0.005, 1000), (0.9, 200)]
)
@pytest.mark.slow
def test_the_mean_time_to_a_false_alarm_is_at_least_the_run_length(
    tolerated: float, run_length: float
) -> None:
    rounds = 1500
    streams = Shipped(rounds, tolerated, calibrate(tolerated, run_length))
    result = alarms(streams, rounds, tolerated, np.random.default_rng(2), 40 * int(run_length))
    result = np.minimum(result, 40 * int(run_length))
    assert result.mean() + 2.5 * result.std() / rounds**0.5 >= run_length


@pytest.mark.slow
def test_a_student_within_tolerance_is_hardly_ever_demoted() -> None:
    """At a true agreement of 0.97, at most 1 % are demoted within 3,000 audits."""
    rounds = 4000
    streams = Shipped(rounds, 0.05, calibrate(0.05, 5000))
    result = alarms(streams, rounds, 0.03, np.random.default_rng(3), 3000)
    assert (result < NEVER).mean() <= 0.01 + 2 * (0.01 * 0.99 / rounds) ** 0.5


@pytest.mark.parametrize(
    ("run_length", "tolerated", "observations"),
    [
        (5000, 0.001, 3),
        (5000, 0.01, 4),
        (5000, 0.02, 4),
        (5000, 0.05, 5),
        (5000, 0.1, 6),
        (5000, 0.2, 8),
        (5000, 0.3, 11),
        (5000, 0.45, 15),
        (100_000, 0.02, 5),
    ],
)
@pytest.mark.slow
def test_the_alarm_comes_in_time_when_everything_is_bad(
    run_length: float, tolerated: float, observations: int
) -> None:
    """The numbers in the module's docstring, also after any number of good observations."""
    assert worst_case_delay(tolerated, run_length) == observations
    for good in (1, 10, 10_000):
        seen = detector_after([False] * good, tolerated, run_length)
        assert next(n for n in range(1, 100) if seen.update(True)) <= observations
    if run_length == 5000:
        docstring = detector.__doc__ or ""
        rates, counts = (
            docstring.partition(f"{name}  ")[2].partition("\n")[0].split()
            for name in ("    tolerated", "    observations")
        )
        assert int(counts[rates.index(str(tolerated))]) == observations


@pytest.mark.parametrize(("new", "median"), [(0.2, 40), (0.1, 173)])
def test_the_median_delay_after_a_change(new: float, median: float) -> None:
    """Tolerated 0.05; the median of audits after a change from 0.02."""
    streams = Shipped(3000, 0.05, calibrate(0.05, 5000))
    assert np.median(delays(streams, 3000, 0.02, new, seed=4)) <= median


# ---- properties --------------------------------------------------------------------------------


@given(stream=STREAM, tolerated=RATES)
@pytest.mark.slow
def test_the_state_is_a_function_of_past_observations(stream: list[bool], tolerated: float) -> None:
    one, other = detector_after(stream, tolerated), detector_after(stream, tolerated)
    assert (one.level, one.alarmed, one.suspects) == (other.level, other.alarmed, other.suspects)
    assert (one.n, one.bad) == (len(stream), sum(stream))
    assert 0 <= one.level <= 1
    assert (one.level == 1) == one.alarmed
    assert 0 <= one.suspects_bad <= one.suspects <= one.n


@given(stream=STREAM, tolerated=RATES, data=st.data())
@pytest.mark.slow
def test_one_more_bad_observation_never_lowers_the_level(
    stream: list[bool], tolerated: float, data: st.DataObject
) -> None:
    if not stream:
        return
    place = data.draw(st.integers(0, len(stream) - 1))
    worse = [*stream[:place], True, *stream[place + 1 :]]
    assert detector_after(worse, tolerated).level >= detector_after(stream, tolerated).level


@settings(deadline=None, max_examples=30)
@given(tolerated=RATES, seed=st.integers(0, 2**32), rate=st.floats(0, 1))
@pytest.mark.slow
def test_the_benchmark_runs_the_same_detector(tolerated: float, seed: int, rate: float) -> None:
    rng = random.Random(seed)
    stream = [rng.random() < rate for _ in range(300)]
    one = ChangeDetector(tolerated, 500)
    many = Shipped(1, tolerated, calibrate(tolerated, 500))
    for bad in stream:
        result = bool(many.update(np.array([bad]))[0])
        assert one.update(bad) == result
        if result:
            break


def test_an_alarm_is_never_taken_back() -> None:
    seen = detector_after([True] * 5)
    assert seen.alarmed
    assert seen.update(False)
    assert seen.level == 1


def test_good_observations_alone_leave_the_level_at_zero() -> None:
    for tolerated in (0.001, 0.05, 0.45):
        seen = detector_after([False] * 20_000, tolerated)
        assert seen.level == 0
        assert seen.suspects == 0


def test_the_suspects_begin_near_the_change() -> None:
    rng = random.Random(7)
    result = []
    for _ in range(200):
        seen = ChangeDetector(0.05, 5000)
        for _ in range(500):
            seen.update(rng.random() < 0.01)
        after = 0
        while not seen.alarmed:
            seen.update(rng.random() < 0.4)
            after += 1
        result.append(seen.suspects - after)
        assert seen.suspects_bad >= 1
    assert abs(float(np.median(result))) <= 3
    assert np.quantile(np.abs(result), 0.9) <= 40


def test_impossible_settings_raise() -> None:
    for tolerated in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="cannot be tolerated"):
            ChangeDetector(tolerated, 5000)
    with pytest.raises(ValueError, match="too short"):
        ChangeDetector(0.05, 99)


@pytest.mark.slow
def test_calibration_ends_for_extreme_tolerances() -> None:
    """Where nearly everything is tolerated, nothing can be proven and no alarm is raised."""
    for tolerated in (1e-6, 0.9999):
        assert sum(bet.hazard for bet in calibrate(tolerated, 1000)) <= 1 / 1000
        seen = detector_after([True] * 100, tolerated, 1000)
        assert 0 <= seen.level <= 1


@pytest.mark.slow
def test_calibration_takes_well_below_a_second() -> None:
    calibrate.cache_clear()
    before = time.process_time()
    ChangeDetector(0.05, 5000)
    assert time.process_time() - before < 1


@pytest.mark.slow
def test_the_benchmarks_reference_detector_has_the_same_run_length() -> None:
    from bench.simulate_detector import Cusum  # noqa: PLC0415

    threshold = cusum_threshold(0.05, 0.2, 500)
    streams = Cusum(2000, 0.05, 0.2, threshold)
    result = alarms(streams, 2000, 0.05, np.random.default_rng(8))
    assert result.mean() == pytest.approx(500, rel=0.1)
