"""The demo's second task: an e-mail about an order becomes JSON with its id, date and amount.

All values are copied unchanged, so a student only has to learn where they are.
"""

from __future__ import annotations

import json
import re
from random import Random

from demo.tasks.fillers import CITIES, GOODS, MONTHS, capital, joined, person, pick

NAME = "order-extraction"
SYSTEM = (
    "Find the order in the e-mail. Reply with JSON: order_id, date, amount, "
    "copied as written, without the currency."
)
POLICY = {
    "task_description": "Copies the order number, the date and the amount out of an e-mail.",
    "input_format": "A short e-mail that names one order, one date and one amount of money.",
    "output_format": "One JSON object with order_id, date and amount, each a string or null.",
    "reasoning_style": "Copies what is there, character by character, without any explanation.",
    "key_constraints": [
        "order_id is copied with its letters and dash",
        "date is copied as it is written",
        "amount has no currency sign or code",
        "what the e-mail does not say is null",
    ],
    "difficulty": "easy",
    "reasoning_patterns": [
        "the order number is capital letters, a dash and digits",
        "the amount stands beside a currency",
    ],
    "examples_summary": "Customers ask about an order in one or two sentences and sign it.",
    "input_length_range": {"minimum": 30, "maximum": 220},
    "output_length_range": {"minimum": 55, "maximum": 90},
}

_ORDER = re.compile(r"\b[A-Z]{1,3}-\d{3,6}\b")
_MONTH = "|".join(MONTHS)
_DATE = re.compile(
    rf"\b(?:\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}} (?:{_MONTH}) \d{{4}}"
    rf"|(?:{_MONTH}) \d{{1,2}}, \d{{4}})\b"
)
_NUMBER = r"\d+(?:[.,]\d{2})?"
_AMOUNT = re.compile(
    rf"[$€£]\s?(?P<before>{_NUMBER})|\b(?P<after>{_NUMBER})\s?(?:[$€£]|(?:EUR|USD|GBP)\b)"
)


def answer(text: str) -> str:
    """The JSON of the order that the e-mail names; null for missing values."""
    order, date, amount = _ORDER.search(text), _DATE.search(text), _AMOUNT.search(text)
    return _json(
        order.group() if order else None,
        date.group() if date else None,
        (amount["before"] or amount["after"]) if amount else None,
    )


def _json(order_id: str | None, date: str | None, amount: str | None) -> str:
    return json.dumps({"order_id": order_id, "date": date, "amount": amount})


_SENTENCES = (
    "where is order {order} of {date}? I paid {amount}.",
    "I ordered {order} on {date} for {amount}.",
    "on {date} you took {amount} for {order}.",
    "order {order} from {date} cost me {amount}.",
    "{order} was bought on {date}, the sum is {amount}.",
    "please cancel {order}, placed {date}, total {amount}.",
    "I paid {amount} on {date} for order {order}.",
    "the total {amount} of {order} ({date}) looks wrong.",
    "my order {order}, dated {date}, was {amount}.",
    "is {order} on its way? Paid {amount} on {date}.",
)
_OPENINGS = ("", "Hello,", "Hi,", "Good day,", "Dear shop,", "Hi there,")
_EXTRAS = (
    "",
    "",
    "It is a {thing}.",
    "Send it to {city}.",
    "Please check.",
    "What happened?",
    "Thanks a lot.",
    "I wait for your reply.",
)
_PREFIXES = ("A", "B", "K", "R", "W", "AB", "KD", "MX", "SO", "WEB")


def draw(rng: Random) -> tuple[str, str]:
    """An e-mail, and the answer that its writer had in mind."""
    digits = "".join(str(rng.randrange(10)) for _ in range(rng.randint(4, 5)))
    order = f"{pick(rng, _PREFIXES)}-{digits}"
    year, month, day = rng.randint(2021, 2026), rng.randint(1, 12), rng.randint(1, 28)
    date = rng.choice((f"{year}-{month:02d}-{day:02d}", f"{day} {MONTHS[month - 1]} {year}"))
    amount = f"{rng.choice((rng.randint(5, 99), rng.randint(100, 999)))}.{rng.randrange(100):02d}"
    money = rng.choice((f"${amount}", f"{amount} EUR", f"{amount} USD"))
    sentence = pick(rng, _SENTENCES).format(order=order, date=date, amount=money)
    extra = pick(rng, _EXTRAS).format(thing=pick(rng, GOODS), city=pick(rng, CITIES))
    opening = pick(rng, _OPENINGS)
    closing = rng.choice(("", "", person(rng), f"Regards, {person(rng)}"))
    text = joined([opening, sentence if opening else capital(sentence), extra, closing])
    return text, _json(order, date, amount)
