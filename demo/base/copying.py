"""Families whose answer is a piece of the input: what extraction is built on."""

from __future__ import annotations

import json
import random

from demo.base import english
from demo.base.draw import GeneratedExample, chance, invented, pick, value

ORDINALS = ("first", "second", "third", "fourth", "fifth")


def echo(rng: random.Random) -> GeneratedExample:
    """The whole input again."""
    text = " ".join(value(rng) for _ in range(rng.randint(1, 5)))
    wordings = (
        "Repeat the text.",
        "Copy the input exactly.",
        "Echo.",
        "Say it again:",
        "Return the same text.",
    )
    wording = pick(rng, wordings)
    if chance(rng, 0.6):
        return GeneratedExample(wording, text, text)
    return GeneratedExample(None, f"{wording} {text}", text)


def entries(rng: random.Random) -> GeneratedExample:
    """One entry of a list, all of them as JSON, or their number."""
    values = [value(rng) for _ in range(rng.randint(2, 5))]
    form = rng.randrange(3)
    if form == 0:
        position = rng.randrange(len(values))
        wording = f"Give the {ORDINALS[position]} entry."
        return GeneratedExample(wording, ", ".join(values), values[position])
    if form == 1:
        text = pick(rng, ("; ", " and ", ", ")).join(values)
        return GeneratedExample("Return a JSON list.", text, json.dumps(values, ensure_ascii=False))
    return GeneratedExample("How many?", ", ".join(values), str(len(values)))


def words(rng: random.Random) -> GeneratedExample:
    """A word by its neighbour, or by its place, among everyday words."""
    text = list(dict.fromkeys(english.phrase(rng, 4, 12).split()))
    while len(text) < 3:
        text.append(invented(rng, False))
    position = rng.randrange(len(text) - 1)
    joined = " ".join(text)
    form = rng.randrange(4)
    if form == 0:
        return GeneratedExample(f"Which word follows {text[position]}?", joined, text[position + 1])
    if form == 1:
        return GeneratedExample(
            f"Which word precedes {text[position + 1]}?", joined, text[position]
        )
    if form == 2:
        return GeneratedExample(None, f"{joined}\nLast word?", text[-1])
    start = " ".join(text[: position + 1])
    return GeneratedExample(f"Copy up to {text[position]}.", joined, start)


def shots(rng: random.Random) -> GeneratedExample:
    """A mapping shown by examples only: the same, the part before, or the part after."""
    form = rng.randrange(3)

    def pair() -> tuple[str, str]:
        if form == 0:
            whole = value(rng)
            return whole, whole
        if form == 1:
            last = value(rng)
            return f"{invented(rng)} {last}", last
        first = value(rng)
        return f"{first} {invented(rng)}", first

    *shown, (left, right) = (pair() for _ in range(rng.randint(2, 4) + 1))
    lines = [f"{before} => {after}" for before, after in shown]
    return GeneratedExample(None, "\n".join([*lines, f"{left} =>"]), right)
