"""The draw: uniform over traces, the same again, and not to be foreseen without the key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest

from distill.monitor.sampling import KEY_BYTES, Draw, load_key
from store.errors import StoreError
from store.ids import new_id

KEY = bytes(range(32))
IDS = [new_id() for _ in range(20_000)]  # as traces have them: alike but for the time and some bits


def test_it_is_uniform_over_traces() -> None:
    draw = Draw(KEY)
    for kind in ("audit", "shadow"):
        numbers = [draw.number(trace_id, kind) for trace_id in IDS]
        assert 0 <= min(numbers) <= max(numbers) < 1
        assert kstest(numbers, "uniform").pvalue > 1e-4
        for share in (0.01, 0.05, 0.2):
            drawn = sum(draw.takes(trace_id, kind, share) for trace_id in IDS)
            assert binomtest(drawn, len(IDS), share).pvalue > 1e-4


def test_one_draw_says_nothing_of_the_other() -> None:
    """Those of another kind, and those with another key."""
    draw, other = Draw(KEY), Draw(b"another key".ljust(32))
    audited = [trace_id for trace_id in IDS if draw.takes(trace_id, "audit", 0.2)]
    for takes in (
        [draw.takes(trace_id, "shadow", 0.2) for trace_id in audited],
        [other.takes(trace_id, "audit", 0.2) for trace_id in audited],
    ):
        assert binomtest(sum(takes), len(takes), 0.2).pvalue > 1e-4


@given(number=st.integers(0, len(IDS) - 1), small=st.floats(0, 1), more=st.floats(0, 1))
def test_a_larger_share_draws_the_same_and_more(number: int, small: float, more: float) -> None:
    small, large = sorted((small, more))
    draw = Draw(KEY)
    assert draw.takes(IDS[number], "audit", large) >= draw.takes(IDS[number], "audit", small)
    assert draw.takes(IDS[number], "audit", 1.0)
    assert not draw.takes(IDS[number], "audit", 0.0)


def test_the_key_is_made_once_and_for_us_alone(tmp_path: Path) -> None:
    file = tmp_path / "data" / "draws.key"
    key = load_key(file)
    assert len(key) == KEY_BYTES
    assert load_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert load_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_key(tmp_path / "other.key") != key


def test_a_torn_key_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "draws.key"
    file.write_bytes(b"torn")
    assert len(load_key(file)) == KEY_BYTES


def test_a_key_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"draws\.key"):
        load_key(tmp_path / "file" / "draws.key")
