"""Families that fill named fields from a text, or bring a value into a normal form."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence

from demo.base import english, lexicon, sentences
from demo.base.draw import (
    GeneratedExample,
    chance,
    city,
    clock,
    code,
    company,
    date,
    digits,
    email,
    money,
    person,
    pick,
    value,
)


def as_json(fields: Mapping[str, object]) -> str:
    """JSON on one line, as the teacher of a task would write it."""
    return json.dumps(fields, ensure_ascii=False)


def pairs(rng: random.Random) -> GeneratedExample:
    """Some fields out of a list of `key: value`; a field that is not there is null."""
    keys = rng.sample(lexicon.KEYS, rng.randint(2, 6))
    values = {key: value(rng) for key in keys}
    text = _pairs_text(rng, values)
    wanted = rng.sample(keys, rng.randint(1, min(3, len(keys))))
    found: dict[str, str | None] = {key: values[key] for key in wanted}
    if chance(rng, 0.12):
        missing = pick(rng, [key for key in lexicon.KEYS if key not in values])
        wanted.append(missing)
        found[missing] = None
    if len(wanted) > 1 or chance(rng, 0.25):
        wording = pick(rng, ("Extract", "Get", "Return JSON with", "Find"))
        ending = pick(rng, (".", " as JSON.", " from the text."))
        return GeneratedExample(f"{wording} {', '.join(wanted)}{ending}", text, as_json(found))
    key = wanted[0]
    question = pick(rng, (f"What is the {key}?", f"Which {key}?", f"Give me the {key}."))
    answer = found[key] or "none"
    system = pick(rng, ("Answer the question.", None))
    return GeneratedExample(system, text + pick(rng, (" ", "\n")) + question, answer)


def _pairs_text(rng: random.Random, values: Mapping[str, str]) -> str:
    between = pick(rng, (": ", " = ", " is ", " - ", " -> "))
    after = pick(rng, ("\n", ". ", "; ", ", "))
    text = after.join(
        (key.capitalize() if chance(rng, 0.5) else key) + between + found
        for key, found in values.items()
    )
    if chance(rng, 0.5):
        text = f"{sentences.aside(rng)} {text}"
    if chance(rng, 0.4):
        text = f"{text} {sentences.aside(rng)}"
    return text


def fields(rng: random.Random) -> GeneratedExample:
    """Some facts out of a sentence; dates and amounts as they stand, or as the prompt asks."""
    (day, iso), (amount, plain) = date(rng), money(rng)
    text, facts = _statement(rng, day, amount)
    if chance(rng, 0.6):
        text = f"{sentences.aside(rng)} {text}"
    if chance(rng, 0.5):
        text = f"{text} {sentences.aside(rng)}"
    wanted = [key for key in facts if chance(rng, 0.75)] or [next(iter(facts))]
    normal, hint = {}, ""
    if day in (facts[key] for key in wanted) and chance(rng, 0.5):
        normal[day] = iso
        hint += " Dates as YYYY-MM-DD."
    if amount in (facts[key] for key in wanted) and chance(rng, 0.5):
        normal[amount] = plain
        hint += " Amounts as plain numbers."
    found = {key: normal.get(facts[key], facts[key]) for key in wanted}
    wording = pick(rng, ("Extract", "Return JSON with", "Find", "Give"))
    return GeneratedExample(f"{wording} {', '.join(wanted)}.{hint}", text, as_json(found))


def _statement(rng: random.Random, day: str, amount: str) -> tuple[str, dict[str, str]]:
    """A sentence and the facts in it; the names of the facts differ from sentence to sentence."""
    who, where, what, ref = person(rng), city(rng), pick(rng, lexicon.THINGS), code(rng)
    firm, mail, count, hour = company(rng), email(rng), digits(rng, 1, 3), clock(rng)
    weekday, colour = pick(rng, lexicon.DAYS), pick(rng, lexicon.COLOURS)
    statements: Sequence[tuple[str, dict[str, str]]] = (
        (
            f"{who} from {firm} will visit {where} on {day}.",
            {"person": who, "company": firm, "city": where, "date": day},
        ),
        (
            f"The booking {ref} for {who} in {where} starts {day} and costs {amount}.",
            {"booking": ref, "guest": who, "city": where, "start": day, "price": amount},
        ),
        (
            f"Flight {ref} to {where} leaves at {hour} on {weekday}.",
            {"flight": ref, "destination": where, "time": hour, "day": weekday},
        ),
        (
            f"Invoice {ref} from {firm} over {amount} is due {day}.",
            {"invoice": ref, "vendor": firm, "sum": amount, "due": day},
        ),
        (
            f"Bring {count} {what} to {who} in {where}.",
            {"quantity": count, "item": what, "recipient": who, "city": where},
        ),
        (
            f"Call {who} at {mail} about the {what} before {hour}.",
            {"contact": who, "email": mail, "topic": what, "deadline": hour},
        ),
        (
            f"Crate {ref} weighs {count} kg and goes to {where}.",
            {"crate": ref, "weight": count, "city": where},
        ),
        (
            f"{who} gave {amount} for a {colour} {what} on {day}.",
            {"buyer": who, "paid": amount, "item": what, "date": day},
        ),
        (
            f"Meeting with {firm} on {day} at {hour}, room {count}.",
            {"company": firm, "date": day, "time": hour, "room": count},
        ),
        (f"My mailbox is {mail} and my reference is {ref}.", {"mailbox": mail, "reference": ref}),
        (
            f"Contract {ref} signed by {who} ({firm}) on {day}, value {amount}.",
            {"contract": ref, "signer": who, "company": firm, "date": day, "value": amount},
        ),
        (
            f"Car {ref} was parked in {where} since {day}; fine {amount}.",
            {"plate": ref, "city": where, "since": day, "fine": amount},
        ),
    )
    return pick(rng, statements)


def command(rng: random.Random) -> GeneratedExample:
    """A spoken-style command as nested JSON: what to do, and lists of what with."""
    verb = pick(rng, ("bring", "find", "move", "paint", "borrow", "hide", "wash", "count", "lend"))
    draws = {
        "thing": ("the", pick(rng, lexicon.THINGS)),
        "person": (pick(rng, ("for", "to")), person(rng).lower()),
        "place": (pick(rng, ("in", "near", "from")), city(rng).lower()),
        "day": ("on", pick(rng, lexicon.DAYS).lower()),
        "hour": (pick(rng, ("at", "before", "by")), clock(rng)),
        "colour": (pick(rng, ("in the colour", "painted")), pick(rng, lexicon.COLOURS)),
    }
    chosen = rng.sample(list(draws), rng.randint(1, 3))
    text = " ".join((verb, *(f"{draws[name][0]} {draws[name][1]}" for name in chosen)))
    if chance(rng, 0.4):
        text = f"{english.phrase(rng, 1, 3)} {text}"
    outer, inner = pick(rng, (("do", "with"), ("action", "args"), ("verb", "parts")))
    found = {outer: verb, inner: {name: [draws[name][1]] for name in chosen}}
    wording = f'Parse the command into {{"{outer}": ..., "{inner}": {{...}}}}.'
    return GeneratedExample(wording, text, as_json(found))


def normal_form(rng: random.Random) -> GeneratedExample:
    """A date or an amount, rewritten."""
    if chance(rng, 0.5):
        written, iso = date(rng)
        wordings = ("Write the date as YYYY-MM-DD.", "Normalise the date.", "ISO date:")
        return GeneratedExample(
            pick(rng, wordings), pick(rng, ("", "on ", "Date: ")) + written, iso
        )
    written, plain = money(rng)
    wordings = ("Write the amount as a plain number.", "Amount only:", "Number only.")
    return GeneratedExample(
        pick(rng, wordings), pick(rng, ("", "it was ", "Total ")) + written, plain
    )
