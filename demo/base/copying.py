"""Families whose answer is a piece of the input: what extraction is built on."""

from __future__ import annotations

import json
import random

from demo.base import english
from demo.base.draw import Example, chance, invented, pick, value

ORDINALS = ("first", "second", "third", "fourth", "fifth")


def echo(rng: random.Random) -> Example:
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
        return Example(wording, text, text)
    return Example(None, f"{wording} {text}", text)


def entries(rng: random.Random) -> Example:
    """One entry of a list, all of them as JSON, or their number."""
    values = [value(rng) for _ in range(rng.randint(2, 5))]
    form = rng.randrange(3)
    if form == 0:
        position = rng.randrange(len(values))
        wording = f"Give the {ORDINALS[position]} entry."
        return Example(wording, ", ".join(values), values[position])
    if form == 1:
        text = pick(rng, ("; ", " and ", ", ")).join(values)
        return Example("Return a JSON list.", text, json.dumps(values, ensure_ascii=False))
    return Example("How many?", ", ".join(values), str(len(values)))


def words(rng: random.Random) -> Example:
    """A word by its neighbour, or by its place, among everyday words."""
    text = list(dict.fromkeys(english.phrase(rng, 4, 12).split()))
    while len(text) < 3:
        text.append(invented(rng, False))
    position = rng.randrange(len(text) - 1)
    joined = " ".join(text)
    form = rng.randrange(4)
    if form == 0:
        return Example(f"Which word follows {text[position]}?", joined, text[position + 1])
    if form == 1:
        return Example(f"Which word precedes {text[position + 1]}?", joined, text[position])
    if form == 2:
        return Example(None, f"{joined}\nLast word?", text[-1])
    start = " ".join(text[: position + 1])
    return Example(f"Copy up to {text[position]}.", joined, start)


def shots(rng: random.Random) -> Example:
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
    return Example(None, "\n".join([*lines, f"{left} =>"]), right)
