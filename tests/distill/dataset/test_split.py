"""Splits: no input in two of them, the shares of the settings, stable when rows are added."""

from __future__ import annotations

from collections import Counter
from math import sqrt
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.dataset.rows import choose_rows
from distill.dataset.split import split_of
from store.chat.shape import input_hash
from store.records import Split
from store.settings.tasks import SplitSettings
from tests.helpers.demo_rows import an_exchange

SHARES = SplitSettings()
texts = st.text(ascii_letters + digits + " .,!?", max_size=30)


def hash_of(text: str) -> str:
    return input_hash([{"role": "user", "content": text}])


@given(
    st.floats(0.05, 0.9),
    st.floats(0.05, 0.9),
)
@pytest.mark.slow
def test_splits_have_the_shares_of_the_settings(train: float, rest: float) -> None:
    calibration = (1 - train) * rest
    shares = SplitSettings(train=train, calibration=calibration, heldout=1 - train - calibration)
    result = Counter(split_of(hash_of(str(i)), shares) for i in range(2000))
    expected: dict[Split, float] = {
        "train": shares.train,
        "calibration": shares.calibration,
        "heldout": shares.heldout,
    }
    for name, share in expected.items():
        # five standard deviations: one false alarm in millions of draws
        assert abs(result[name] / 2000 - share) < 5 * sqrt(share * (1 - share) / 2000) + 1e-3


@given(st.lists(texts, max_size=30), st.lists(texts, max_size=30))
@pytest.mark.slow
def test_no_input_and_no_group_is_in_two_splits(first: list[str], later: list[str]) -> None:
    """Spellings of one input count as one. A group has the split of its oldest input."""
    spelt = [*first, *(t.upper() for t in first), *(f"  {t}  " for t in first)]
    exchanges = [an_exchange(t, at=float(i)) for i, t in enumerate((*spelt, *later))]
    rows = choose_rows(exchanges, SHARES).rows

    assert len({row.input_hash for row in rows}) == len(rows)
    for text in first:
        assert hash_of(text) == hash_of(text.upper()) == hash_of(f"  {text}  ")
    oldest: dict[int | None, str] = {}
    for exchange in exchanges:
        of_input = input_hash(exchange.request.messages)
        for row in rows:
            if row.input_hash == of_input:
                oldest.setdefault(row.group, of_input)
    for row in rows:
        assert row.split == split_of(oldest[row.group], SHARES)


def test_the_split_of_an_input_is_pinned() -> None:
    """A change of the formula would mix held-out inputs into the training of later runs."""
    result = [split_of(hash_of(str(i)), SHARES) for i in range(6)]
    assert result == ["heldout", "train", "calibration", "train", "train", "heldout"]
