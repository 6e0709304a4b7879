"""Near duplicates: which texts are near, and that MinHash misses none."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.tasks.tasks import TASKS
from distill.amplify.near_duplicates import NearDuplicates, simplified

SEEN = "Hi, where is my order K-123? I paid 20 dollars."


@pytest.mark.parametrize(
    ("text", "near"),
    [
        (SEEN, True),
        ("HI WHERE IS MY ORDER K 123 I PAID 20 DOLLARS", True),
        ("Hi, where is my order K-124? I paid 20 dollars!", True),
        ("Hi, where is the parcel from last week? I paid 20 dollars.", False),
        ("The lamp broke.", False),
        ("", False),
    ],
)
def test_texts_that_differ_little_are_near(text: str, near: bool) -> None:
    assert (text in NearDuplicates(0.9, [SEEN])) is near


def test_only_the_text_itself_is_near_at_one() -> None:
    seen = NearDuplicates(1.0, [SEEN])
    assert SEEN.lower() in seen
    assert SEEN.replace("20", "30") not in seen


def test_text_without_words_is_compared_unchanged() -> None:
    seen = NearDuplicates(0.9, [":-)", "?!"])
    assert ":-)" in seen
    assert ":-(" not in seen
    assert simplified(" ?! ") == "?!"


@pytest.mark.slow
def test_one_more_letter_lowers_the_similarity() -> None:
    """No miss by MinHash among a thousand texts and their slightly changed copies."""
    texts = list(islice(TASKS["order-extraction"].texts("near"), 1000))
    seen = NearDuplicates(0.9, texts)
    rng = Random(1)
    changed = []
    for text in texts:
        place = rng.randrange(len(text))
        changed.append(f"{text[:place]}x{text[place:]}")
    assert [text for text in changed if text not in seen] == []


@given(st.lists(st.text(max_size=20), max_size=20), st.text(max_size=20))
def test_every_text_is_near_to_itself(texts: list[str], text: str) -> None:
    seen = NearDuplicates(0.9, [*texts, text])
    assert text in seen
    assert 0 <= seen.similarity(text) <= 1
