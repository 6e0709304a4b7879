"""The newest groups judge: fewer certificates that are wrong for what follows a slow drift."""

from __future__ import annotations

import pytest

from bench.drift import DRIFTS, drifting, simulated
from demo.backtest.logs import LogRow


@pytest.mark.slow
def test_the_newest_groups_tell_more_of_what_follows_than_a_hash_split() -> None:
    lines = simulated(20)
    still, slow, worse = lines[0], lines[1], lines[2]
    assert [(line["begins"], line["ends"]) for line in lines] == list(DRIFTS)
    assert still["newest_passed"] > 0.8 and still["hash_passed"] > 0.8
    assert slow["newest_passed"] < slow["hash_passed"]
    assert worse["follows"] < 0.95
    assert worse["newest_wrong"] <= 0.1 < worse["hash_wrong"]


def test_a_drift_grows_along_the_stream() -> None:
    rows = [
        LogRow([{"role": "user", "content": str(place)}], "abc"[place % 3]) for place in range(3000)
    ]
    right = {row.messages[0]["content"]: row.answer for row in rows}
    changed = [
        row.answer != right[row.messages[0]["content"]] for row in drifting(rows, "answers", 1)
    ]
    assert sum(changed[:1500]) < sum(changed[1500:]) / 2
    assert drifting(rows, "none", 1) != rows
    arrived = [row.answer for row in drifting(rows, "arrivals", 1)]
    assert "a" not in arrived[:900]
