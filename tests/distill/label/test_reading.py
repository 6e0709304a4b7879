from __future__ import annotations

import pytest
from sklearn.feature_extraction.text import CountVectorizer

from distill.label.ngrams import character_ngrams, counted, word_ngrams
from distill.label.reading import MAX_CHARS, SystemFrame, parts_of


@pytest.mark.parametrize(
    "text", ["give me the weather forecast for zambia", "a bb", "i", "Ça va? yes-no", "x  y\tz\n"]
)
def test_characters_are_those_of_scikit_learn(text: str) -> None:
    analyse = CountVectorizer(analyzer="char_wb", ngram_range=(2, 4)).build_analyzer()
    grams = [gram for gram in analyse(text) if len(gram) <= len(text) + 2]
    hashes, _ = counted(character_ngrams(text, 0))

    assert len(hashes) == len(set(grams))


def test_the_same_words_in_another_part_are_other_ngrams() -> None:
    one, other = set(word_ngrams("turn it off", 0)), set(word_ngrams("turn it off", 1))

    assert len(one) == len(other) == 5
    assert not one & other


@pytest.mark.parametrize("text", ["", " ", "\n", "\ud800", "…", "日本語", "a" * 100_000])
def test_any_text_has_ngrams_or_none(text: str) -> None:
    assert character_ngrams(text, 0).dtype == word_ngrams(text, 0).dtype == "uint32"


def test_a_system_prompt_that_never_varies_is_left_out() -> None:
    frame = SystemFrame.of(["Classify."] * 3)
    messages = [
        {"role": "system", "content": "Classify."},
        {"role": "user", "content": "hello"},
    ]
    assert parts_of(messages, frame) == {"last": "hello"}


def test_what_varies_in_a_system_prompt_is_read() -> None:
    frame = SystemFrame.of([f"Today is {day}. Classify for Ann." for day in ("Monday", "Friday")])
    system = {"role": "system", "content": "Today is Sunday. Classify for Ann."}
    parts = parts_of([system, {"role": "user", "content": "hello"}], frame)

    assert parts == {"last": "hello", "system": "Sunday."}


def test_turns_before_the_last_one_are_context() -> None:
    conversation = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "answer"},
        {"role": "tool", "content": "result"},
        {"role": "user", "content": "last"},
    ]
    parts = parts_of(conversation, SystemFrame())

    assert parts == {"last": "last", "user": "first", "other": "answer\nresult"}


def test_of_a_long_text_both_ends_are_read() -> None:
    text = "begin" + "x" * 3 * MAX_CHARS + "end"
    [read] = parts_of([{"role": "user", "content": text}], SystemFrame()).values()

    assert read.startswith("begin") and read.endswith("end")
    assert len(read) <= MAX_CHARS + 1
