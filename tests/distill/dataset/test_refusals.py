"""Refusals in words: left out where they are no answers, kept where they are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from distill.dataset.refusals import reads_like_a_refusal, refusals
from distill.dataset.rows import choose_rows
from store.settings.tasks import SplitSettings
from tests.helpers.demo_rows import an_exchange

REFUSALS = [
    "I'm sorry, but I can't assist with that.",
    "I\u2019m sorry, but I can\u2019t help with this request.",
    "Sorry, I cannot provide that information.",
    "I cannot assist with this.",
    "I can't help with that request.",
    "Unfortunately, I am unable to answer.",
    "As an AI language model, I cannot do that.",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Leider kann ich diese Anfrage nicht beantworten.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "Lo siento, pero no puedo ayudar con eso.",
    "Mi dispiace, ma non posso aiutarti.",
    "Desculpe, mas não posso ajudar com isso.",
    "Извините, я не могу помочь с этим.",  # noqa: RUF001
    "抱歉，我无法回答这个问题。",  # noqa: RUF001
    "申し訳ありませんが、お答えできません。",
    "The response was filtered due to the prompt triggering the content management policy.",
]
ANSWERS = [
    "refuse",
    "refusal",
    "sorry",
    "cannot_help",
    "apology",
    "I cannot find my order",
    "shipping",
    '{"answer": "I\'m sorry, but I can\'t assist with that."}',
    "Sorry for the delay! Your parcel left today.",
    "I'm sorry to hear that. A refund is on its way.",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_in_words_is_found_in_several_languages(text: str) -> None:
    assert reads_like_a_refusal(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_is_no_refusal_for_a_word(text: str) -> None:
    assert not reads_like_a_refusal(text)


def left_out(answers: Sequence[str], system: str = "Sort it: refund or shipping.") -> int:
    traces = [an_exchange(f"ticket {n} here", a, system=system) for n, a in enumerate(answers)]
    selection = choose_rows(traces, SplitSettings())
    learned = len(selection.rows)
    assert learned + selection.left_out.get("refusal", 0) == len(answers)
    return selection.left_out.get("refusal", 0)


@pytest.mark.parametrize(
    "usual", ["shipping", '{"team": "shipping", "text": "a"}'], ids=["label", "json"]
)
def test_refusals_among_labels_and_json_are_counted_and_not_learned(usual: str) -> None:
    assert left_out([usual] * 90 + REFUSALS[:10]) == 10


def test_apologies_of_customer_service_are_answers() -> None:
    reply = "I'm sorry, but we cannot change parcel {n} on its way. It comes on day {n} at noon."
    other = "Thank you for writing about parcel {n}. A colleague will call you on day {n}, soon."
    replies = [reply.format(n=n) if n % 10 == 0 else other.format(n=n) for n in range(100)]
    assert left_out(replies) == 0


def test_a_frequent_refusal_is_a_label_of_the_task() -> None:
    assert left_out(["shipping"] * 70 + [REFUSALS[0]] * 30) == 0


def test_a_phrase_that_the_prompt_asks_for_is_an_answer() -> None:
    system = "Sort it. For anything else answer: Sorry, I cannot help with that."
    assert left_out(["shipping"] * 90 + ["Sorry, I cannot help with that."] * 10, system) == 0


def test_nothing_is_a_refusal_without_other_answers() -> None:
    assert refusals([REFUSALS[0]], []) == set()
    assert refusals([], []) == set()
