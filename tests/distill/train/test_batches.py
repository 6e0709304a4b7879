"""Batches: no row is lost, batches change each epoch, and padding has no weight."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.train.batches import Batches, pad
from distill.train.rendering import Rendered


def sample(count: int, start: int = 0) -> list[Rendered]:
    """Rows of different lengths; the first token is a row's number."""
    return [
        Rendered([number, *range(10, 13 + (number * 7) % 20)], 2)
        for number in range(start, start + count)
    ]


def numbers(batch: tuple) -> list[int]:  # type: ignore[type-arg]
    return [int(n) for n in np.array(batch[0])[:, 0]]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_every_row_comes_once_per_epoch(count: int, batch_size: int, seed: int) -> None:
    rows, batches = sample(count), Batches(mask_prompt=True, seed=seed)
    per_epoch = -(-count // batch_size)
    run = batches(rows, batch_size, 64, loop=True)
    for _ in range(3):
        epoch = [numbers(batch) for batch in islice(run, per_epoch)]
        assert sorted(n for batch in epoch for n in batch) == list(range(count))
        assert max(map(len, epoch)) <= batch_size
    once = list(batches(rows, batch_size, 64))
    assert sorted(n for batch in once for n in numbers(batch)) == list(range(count))


def test_epochs_differ_and_a_seed_repeats_them() -> None:
    def epochs(seed: int) -> list[set[frozenset[int]]]:
        run = Batches(mask_prompt=True, seed=seed)(sample(40), 4, 64, loop=True)
        return [{frozenset(numbers(batch)) for batch in islice(run, 10)} for _ in range(3)]

    first, second, third = epochs(1)
    assert first != second != third
    assert epochs(1) == [first, second, third]
    assert epochs(2) != [first, second, third]


def test_rows_of_similar_length_come_together() -> None:
    lengths = [[len(r) for r in sample(200)][n] for n in range(200)]
    for batch in Batches(mask_prompt=True, seed=0)(sample(200), 4, 64):
        members = [lengths[n] for n in numbers(batch)]
        assert max(members) <= 2 * min(members)


def test_tokens_are_counted_without_padding() -> None:
    rows, batches = sample(10), Batches(mask_prompt=True, seed=0)
    list(batches(rows, 3, 64))
    assert batches.tokens == sum(len(row) for row in rows)


def test_targets_follow_their_positions() -> None:
    rows = [Rendered([5, 6, 7, 8, 9], 3), Rendered([1, 2, 3], 1)]
    batch = pad(rows, mask_prompt=True)
    assert batch.tokens.shape == (2, 16)
    for number, row in enumerate(rows):
        real = batch.weights[number] == 1
        assert batch.targets[number][real].tolist() == row.tokens[row.answer :]
        following = batch.positions[number][real] + 1
        assert batch.tokens[number][following].tolist() == row.tokens[row.answer :]
    assert batch.weights.sum() == 2 + 2


def test_without_a_mask_the_prompt_is_a_target_too() -> None:
    row = Rendered([5, 6, 7, 8, 9], 3)
    batch = pad([row], mask_prompt=False)
    assert batch.targets[0][batch.weights[0] == 1].tolist() == [6, 7, 8, 9]


def test_a_row_that_is_too_long_is_an_error() -> None:
    with pytest.raises(ValueError, match="longer than max_seq_length"):
        next(Batches(mask_prompt=True, seed=0)(sample(20), 2, 8))
