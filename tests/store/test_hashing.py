"""Numbers that follow from a text: within bounds, repeatable, uniform, and independent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from store.hashing import uniform


@given(st.binary(max_size=40), st.binary(max_size=64), st.binary(max_size=16))
def test_a_number_lies_in_the_unit_interval_and_comes_again(
    content: bytes, key: bytes, purpose: bytes
) -> None:
    number = uniform(content, key=key, purpose=purpose)
    assert 0 <= number < 1
    assert uniform(content, key=key, purpose=purpose) == number


def test_the_numbers_are_uniform() -> None:
    numbers = [uniform(str(i).encode()) for i in range(10_000)]
    for tenth in range(10):
        share = sum(tenth <= 10 * n < tenth + 1 for n in numbers) / len(numbers)
        assert abs(share - 0.1) < 0.015  # five standard deviations


def test_keys_and_purposes_give_other_numbers() -> None:
    plain = uniform(b"a")
    assert len({plain, uniform(b"a", key=b"k"), uniform(b"a", purpose=b"p"), uniform(b"b")}) == 4


def test_the_numbers_are_pinned() -> None:
    """Another formula would move rows to other splits and conversations to other buckets."""
    assert uniform(b"0", purpose=b"split") == 0.17835513288233662
    assert uniform(b"0", key=b"k") == 0.6370596953052584
