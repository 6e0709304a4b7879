"""The demo's third task: a product review becomes one word, positive, negative or neutral."""

from __future__ import annotations

import re
from random import Random

from demo.tasks.fillers import CITIES, DAYS, FIRST_NAMES, GOODS, joined, pick, words

NAME = "review-sentiment"
SYSTEM = "Is the review positive, negative or neutral? Reply with one word."
POLICY = {
    "task_description": "Says whether a product review is positive, negative or neutral.",
    "input_format": "A product review of one to three short sentences in plain English.",
    "output_format": "Exactly one word in lower case: positive, negative or neutral.",
    "reasoning_style": "Weighs words of praise against words of blame, without any explanation.",
    "key_constraints": [
        "the answer is one of positive, negative, neutral",
        "a review of facts without an opinion is neutral",
    ],
    "difficulty": "easy",
    "reasoning_patterns": [
        "praise makes it positive and blame negative; facts do not count",
        "a negation turns the word that it stands before",
    ],
    "examples_summary": "Buyers say what they think of a household product, or only describe it.",
    "input_length_range": {"minimum": 12, "maximum": 200},
    "output_length_range": {"minimum": 7, "maximum": 8},
}

_GOOD = set(
    words("""
    love loves loved great superb excellent perfect wonderful delighted happy recommend best
    recommended fantastic beautiful amazing brilliant pleased good nice enjoy impressed joy
    """)
)
_BAD = set(
    words("""
    hate hates hated broke broken awful terrible worst useless disappointed disappointing regret
    junk refuse horrible poor ugly faulty bad waste angry annoying failed fails cracked return
    """)
)
_NOT = set(words("not never no hardly cannot don't didn't isn't wasn't doesn't won't"))
_WORD = re.compile(r"[a-z']+|[.!?;]", re.I)
_REACH = 3  # words after a negation that it turns


def answer(text: str) -> str:
    """The review's sentiment: words of praise against words of blame, negations turned."""
    score, turned = 0, 0
    for word in (w.lower() for w in _WORD.findall(text)):
        if word in _NOT:
            turned = _REACH
            continue
        worth = (word in _GOOD) - (word in _BAD)
        score += -worth if turned else worth
        turned = 0 if word in ".!?;" else max(turned - 1, 0)
    return "positive" if score > 0 else "negative" if score < 0 else "neutral"


_OPINIONS = {
    "positive": (
        "I love this {thing}.",
        "Everyone in {city} loves the {thing}.",
        "The {thing} is superb.",
        "The best {thing} in {city}.",
        "We are delighted with the {thing}.",
        "An excellent {thing}.",
        "The {thing} works great.",
        "I recommend the {thing} to {name}.",
        "A wonderful gift for {name}.",
        "{name} is happy with the {thing}.",
    ),
    "negative": (
        "I hate this {thing}.",
        "Everyone in {city} hates the {thing}.",
        "The {thing} is awful.",
        "The worst {thing} in {city}.",
        "We are disappointed by the {thing}.",
        "A terrible {thing}.",
        "The {thing} broke on {day}.",
        "I regret buying the {thing}.",
        "A useless gift for {name}.",
        "{name} is angry about the {thing}.",
    ),
}
_FACTS = (
    "I bought the {thing} in {city}.",
    "The {thing} came on {day}.",
    "It is a plain {thing}.",
    "{name} uses it on {day}.",
    "The {thing} is grey.",
    "It has the usual size.",
    "The {thing} stands in the hall.",
    "This is my second {thing}.",
    "It weighs about two kilos.",
    "The box was made of paper.",
    "{name} ordered the {thing} for {city}.",
    "It came with a cable.",
)


def draw(rng: Random) -> tuple[str, str]:
    """A review, and the answer that its writer had in mind."""
    sentiment = pick(rng, ("positive", "negative", "neutral"))
    fill = {
        "thing": pick(rng, GOODS),
        "city": pick(rng, CITIES),
        "day": pick(rng, DAYS),
        "name": pick(rng, FIRST_NAMES),
    }
    facts = rng.sample(_FACTS, 2)
    if sentiment == "neutral":
        sentences = facts
    else:
        opinions = rng.sample(_OPINIONS[sentiment], 2)
        sentences = rng.choice(
            (opinions, opinions, [opinions[0], facts[0]], [facts[0], opinions[0]])
        )
    return joined([sentence.format(**fill) for sentence in sentences]), sentiment
