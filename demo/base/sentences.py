"""Sentences with a known property: topic, tone, or how soon something is wanted."""

from __future__ import annotations

import random

from demo.base import english, lexicon
from demo.base.draw import chance, invented, person, pick

# How soon something is wanted, by the phrases that say so.
SOON: dict[str, tuple[str, ...]] = {
    "now": (
        "right away",
        "at once",
        "within the hour",
        "this very moment",
        "without delay",
        "before noon today",
        "now, if you can",
        "it burns",
        "everything stands still",
        "top of the list",
        "hurry up",
        "a disaster",
    ),
    "soon": (
        "in a few days",
        "some time this week",
        "when the team is free",
        "in the normal order",
        "after the meeting",
        "by Thursday",
        "as usual",
        "in the ordinary way",
    ),
    "later": (
        "some day",
        "eventually",
        "in a month or so",
        "there is plenty of time",
        "it is only a wish",
        "a detail",
        "after the holidays",
        "when the days get longer",
        "just wondering",
        "sometime in winter",
    ),
}

ASPECTS = (*lexicon.THINGS, "service", "meal", "room", "hotel", "film", "team", "staff", "concert")


def topic(rng: random.Random, name: str | None = None) -> tuple[str, str]:
    """A topic's name and a sentence with its words."""
    name = name or pick(rng, tuple(lexicon.TOPICS))
    first, second, third = (pick(rng, lexicon.TOPICS[name]) for _ in range(3))
    opinion = pick(rng, (*lexicon.PRAISE, *lexicon.BLAME, *lexicon.PLAIN))
    words = english.phrase(rng, 1, 4)
    sentences = (
        f"The {first} and the {second} were part of the {third} story.",
        f"We talked about the {first} before the {second}.",
        f"My {first} needs a new {second}.",
        f"Something about the {first}, the {second} and the {third} is odd.",
        f"I read about {first} and {second} {pick(rng, lexicon.DAYS)}.",
        f"{person(rng)} {pick(rng, lexicon.VERBS)} the {first} {pick(rng, lexicon.ADVERBS)}; "
        f"the {second} came later.",
        f"A {opinion} {first} with {second}.",
        f"Can you tell me more about the {first}? I like {second}.",
        f"{first.capitalize()} is about {second} and {third}.",
        f"Yesterday the {first} was {opinion}, but the {second} was not.",
        f"{words} {first} {english.phrase(rng, 1, 3)} {second}",
        f"{words} the {first}",
    )
    return name, pick(rng, sentences)


def tone(rng: random.Random, kind: str) -> str:
    """A sentence that is "for", "against" or "even" about something."""
    words = {"for": lexicon.PRAISE, "against": lexicon.BLAME, "even": lexicon.PLAIN}[kind]
    thing, first, second = pick(rng, ASPECTS), pick(rng, words), pick(rng, words)
    sentences = [
        f"The {thing} is {first}.",
        f"What a {first} {thing}!",
        f"My {thing} was {first} and {second}.",
        f"{first.capitalize()} {thing}, {second} overall.",
        f"I think the {thing} is really {first}.",
        f"Honestly, the {thing} felt {first}.",
    ]
    if kind == "for":
        sentences.append(f"I {pick(rng, lexicon.LIKES)} this {thing}.")
        sentences.append(f"Not {pick(rng, lexicon.BLAME)} at all, the {thing} is {first}.")
    if kind == "against":
        sentences.append(f"I {pick(rng, lexicon.DISLIKES)} this {thing}.")
        sentences.append(f"Not {pick(rng, lexicon.PRAISE)} at all, the {thing} is {first}.")
    return pick(rng, sentences)


def soon(rng: random.Random, kind: str) -> tuple[str, str]:
    """A topic's name and a message about it that is wanted "now", "soon" or "later"."""
    cue = pick(rng, SOON[kind])
    name, sentence = topic(rng)
    texts = (
        f"{sentence} {cue.capitalize()}.",
        f"{cue.capitalize()}. {sentence}",
        f"{sentence} Do it {cue}.",
        f"{sentence} ({cue})",
    )
    return name, pick(rng, texts)


def aside(rng: random.Random) -> str:
    """Something beside the point."""
    kind = rng.random()
    if kind < 0.3:
        return pick(rng, lexicon.FILLERS)
    if kind < 0.55:
        return topic(rng)[1]
    if kind < 0.75:
        return tone(rng, pick(rng, ("for", "against", "even")))
    if kind < 0.95:
        return english.phrase(rng, 3, 9)
    return f"{invented(rng, True)} {english.phrase(rng, 1, 3)}."


def dress(rng: random.Random, text: str, before: float = 0.3, after: float = 0.2) -> str:
    """The text with a greeting or a name around it, at times in lower case without punctuation."""
    if chance(rng, before):
        text = f"{pick(rng, lexicon.FILLERS)} {text}"
    if chance(rng, after):
        text = f"{text} {pick(rng, (person(rng), pick(rng, lexicon.FILLERS)))}"
    if chance(rng, 0.15):
        text = text.lower().rstrip(".!?")
    return text
