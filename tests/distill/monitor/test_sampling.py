"""The sampling of traces: uniform, deterministic, and unpredictable without the key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kstest

from distill.monitor.sampling import KEY_BYTES, Sampler, load_key
from store.errors import StoreError
from store.ids import new_id

KEY = bytes(range(32))
IDS = [new_id() for _ in range(20_000)]  # as traces have them: alike but for the time and some bits


@pytest.mark.slow
def test_the_sample_is_uniform_over_traces() -> None:
    sampler = Sampler(KEY)
    for kind in ("audit", "shadow"):
        numbers = [sampler.position(trace_id, kind) for trace_id in IDS]
        assert 0 <= min(numbers) <= max(numbers) < 1
        assert kstest(numbers, "uniform").pvalue > 1e-4
        for share in (0.01, 0.05, 0.2):
            sampled = sum(sampler.selects(trace_id, kind, share) for trace_id in IDS)
            assert binomtest(sampled, len(IDS), share).pvalue > 1e-4


def test_samples_of_other_kinds_and_keys_are_independent() -> None:
    sampler, other = Sampler(KEY), Sampler(b"another key".ljust(32))
    audited = [trace_id for trace_id in IDS if sampler.selects(trace_id, "audit", 0.2)]
    for selected in (
        [sampler.selects(trace_id, "shadow", 0.2) for trace_id in audited],
        [other.selects(trace_id, "audit", 0.2) for trace_id in audited],
    ):
        assert binomtest(sum(selected), len(selected), 0.2).pvalue > 1e-4


@given(number=st.integers(0, len(IDS) - 1), small=st.floats(0, 1), more=st.floats(0, 1))
def test_a_larger_share_contains_the_sample_of_a_smaller_one(
    number: int, small: float, more: float
) -> None:
    small, large = sorted((small, more))
    sampler = Sampler(KEY)
    assert sampler.selects(IDS[number], "audit", large) >= sampler.selects(
        IDS[number], "audit", small
    )
    assert sampler.selects(IDS[number], "audit", 1.0)
    assert not sampler.selects(IDS[number], "audit", 0.0)


def test_the_key_is_created_once_with_mode_0600(tmp_path: Path) -> None:
    file = tmp_path / "data" / "draws.key"
    key = load_key(file)
    assert len(key) == KEY_BYTES
    assert load_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert load_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_key(tmp_path / "other.key") != key


def test_a_truncated_key_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "draws.key"
    file.write_bytes(b"torn")
    assert len(load_key(file)) == KEY_BYTES


def test_a_folder_in_the_place_of_the_key_makes_room(tmp_path: Path) -> None:
    file = tmp_path / "draws.key"
    file.mkdir()
    assert load_key(file) == load_key(file) == file.read_bytes()


def test_a_key_that_cannot_be_written_raises_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"draws\.key"):
        load_key(tmp_path / "file" / "draws.key")
