"""How often something may happen in a minute."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from proxy.access.rates import WINDOW_S, Rate, shared_cells
from tests.helpers.paths import ROOT

NOW = 1_800_000_000.0


def test_a_burst_of_a_minutes_worth_is_admitted_then_the_rate():
    rate, cells = Rate(0, per_minute=6), [0.0]
    for _ in range(6):
        assert rate.wait_s(cells, NOW) == 0
        rate.take(cells, NOW)
    assert rate.wait_s(cells, NOW) == 10
    assert rate.wait_s(cells, NOW + 9.9) > 0
    assert rate.wait_s(cells, NOW + 10) == 0
    rate.take(cells, NOW + 10)
    assert rate.wait_s(cells, NOW + 10) == 10


def test_a_cost_of_more_than_a_minute_is_waited_for():
    rate, cells = Rate(0, per_minute=1_000), [0.0]
    rate.take(cells, NOW, 4_000)
    assert rate.wait_s(cells, NOW, 0) == 180
    assert rate.wait_s(cells, NOW + 180, 0) == 0


def test_a_clock_that_is_set_back_refuses_for_an_hour_at_most():
    rate, cells = Rate(0, per_minute=60), [NOW + 10 * 365 * 86_400]
    assert rate.wait_s(cells, NOW) <= 3_601


@given(
    per_minute=st.integers(1, 500),
    gaps=st.lists(st.floats(0, 20), min_size=1, max_size=200),
)
def test_no_window_lets_in_more_than_two_minutes_worth(per_minute, gaps):
    """The bound of a bucket: what it holds, and what flows in meanwhile."""
    rate, cells, now, let_in = Rate(0, per_minute), [0.0], NOW, []
    for gap in gaps:
        now += gap
        if rate.wait_s(cells, now) == 0:
            rate.take(cells, now)
            let_in.append(now)
    for first in let_in:
        within = [at for at in let_in if first <= at < first + WINDOW_S]
        assert len(within) <= 2 * per_minute


@given(per_minute=st.integers(1, 500), costs=st.lists(st.floats(0, 300), max_size=50))
def test_a_client_that_waits_as_told_is_admitted(per_minute, costs):
    rate, cells = Rate(0, per_minute), [0.0]
    for cost in costs:
        rate.take(cells, NOW, cost)
    told = rate.wait_s(cells, NOW)
    if told < 3_000:
        assert rate.wait_s(cells, NOW + told + 0.001) == 0


def test_workers_share_what_they_count(tmp_path):
    cells = shared_cells(tmp_path, ["a", "b"])
    cells[1] = 5.5
    code = (
        "import sys; from pathlib import Path; from proxy.access.rates import shared_cells;"
        "cells = shared_cells(Path(sys.argv[1]), ['a', 'b']); print(cells[1]); cells[0] = 7.25"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert other.stdout.strip() == "5.5"
    assert cells[0] == 7.25
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]


def test_other_limits_begin_anew_and_leave_no_file_behind(tmp_path):
    shared_cells(tmp_path, ["a"])[0] = 1.0
    cells = shared_cells(tmp_path, ["a", "b"])
    assert [cells[0], cells[1]] == [0.0, 0.0]
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_folder_each_process_counts_alone(tmp_path):
    (tmp_path / "file").write_text("")
    cells = shared_cells(tmp_path / "file" / "folder", ["a"])
    cells[0] = 2.0
    assert cells[0] == 2.0
