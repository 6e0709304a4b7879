"""Families that answer in sentences: a short reply after instructions, and a text carried on."""

from __future__ import annotations

import random

from demo.base import lexicon, sentences
from demo.base.draw import GeneratedExample, chance, city, code, company, person, pick


def reply(rng: random.Random) -> GeneratedExample:
    """A reply in the words of the prompt, its blanks filled from the message."""
    who, ref, thing, where = person(rng), code(rng), pick(rng, lexicon.THINGS), city(rng)
    texts = (
        f"{who} asks about the {thing} ({ref}).",
        f"From {who}: my {thing} from {where} has number {ref}.",
        f"{ref} / {who} / {thing}",
        f"I am {who}, I want to talk about {thing} {ref}.",
    )
    text = pick(rng, texts)
    bodies = (
        ("we got your note about the ITEM.", f"we got your note about the {thing}."),
        ("your number is CODE.", f"your number is {ref}."),
        ("the ITEM message CODE is open.", f"the {thing} message {ref} is open."),
        ("we will look at CODE.", f"we will look at {ref}."),
    )
    instruction, body = pick(rng, bodies)
    if chance(rng, 0.4):
        text = f"{text} {sentences.aside(rng)}"
    greeting = pick(rng, ("Hi", "Hello", "Dear"))
    ending = pick(rng, ("Yours, the team", "Warmly", "Yours, " + company(rng)))
    system = f"Reply: greet with {greeting}, then say: {instruction} Sign: {ending}."
    return GeneratedExample(system, text, f"{greeting} {who}, {body} {ending}")


def carry_on(rng: random.Random) -> GeneratedExample:
    """The continuation of a text, which cannot be predicted: it teaches the form of sentences."""
    text = " ".join(sentences.aside(rng) for _ in range(rng.randint(2, 4)))
    words = text.split()
    shown = rng.randint(1, len(words) - 1) if len(words) > 1 else 1
    rest = " ".join(words[shown:]) or text
    return GeneratedExample(pick(rng, ("Continue.", "Go on.")), " ".join(words[:shown]), rest)
