"""The demo's first task: a support ticket becomes JSON with a category and a priority.

`answer` gives the stand-in teacher's answer: rules over the text. `draw` writes tickets with the
answer that they were made for; a test proves that the rules find that answer in the text alone.
"""

from __future__ import annotations

import json
import re
from random import Random

from demo.tasks.fillers import CITIES, DAYS, FIRST_NAMES, GOODS, MONTHS, joined, person, pick, words

NAME = "ticket-triage"
SYSTEM = (
    "Sort the support ticket. Reply with JSON: "
    '{"category": "billing|technical|account|delivery|question", "priority": "high|normal|low"}'
)
POLICY = {
    "task_description": "Sorts a support ticket by what it is about and how soon it must be seen.",
    "input_format": "One short support ticket in plain English, sometimes with a greeting or name.",
    "output_format": "One JSON object with the keys category and priority, nothing around it.",
    "reasoning_style": "Picks labels by the words of the ticket, without any explanation.",
    "key_constraints": [
        "category is billing, technical, account, delivery or question",
        "priority is high, normal or low",
        "a ticket that says nothing about time is normal",
    ],
    "difficulty": "easy",
    "reasoning_patterns": [
        "invoices, charges and prices are billing; crashes and errors are technical",
        "sign-in and users are account; parcels and couriers are delivery; the rest is question",
        "words of haste make it high, words of patience make it low",
    ],
    "examples_summary": "Customers report a problem or ask something in one to three sentences.",
    "input_length_range": {"minimum": 15, "maximum": 220},
    "output_length_range": {"minimum": 35, "maximum": 50},
}

# what a category is known by; the first that matches most often wins, none of them is a question
_CUES = {
    "billing": (
        r"invoic\w+|bill(?:s|ed|ing)?|charge[ds]?|pay|paid|payments?|receipts?|prices?|fees?|vat|"
        r"refund\w*|discounts?|money"
    ),
    "technical": (
        r"crash\w*|errors?|freez\w+|frozen|blank|timeouts?|slow|bugs?|broken|"
        r"(?:not|doesn't) (?:work|load|save)"
    ),
    "account": (
        r"passwords?|(?:sign|log) ?in|locked out|two-factor|verification|users?|profile|accounts?"
    ),
    "delivery": (
        r"parcels?|couriers?|track\w*|deliver\w*|ship(?:s|p\w+)?|packages?|customs|arrive\w*"
    ),
}
_CATEGORIES = {name: re.compile(rf"\b(?:{cues})\b", re.I) for name, cues in _CUES.items()}
_LOW = re.compile(
    r"\b(?:not urgent|no (?:rush|hurry)|can wait|whenever|take your time|minor|just curious)\b",
    re.I,
)
_HIGH = re.compile(
    r"\b(?:urgent(?:ly)?|emergency|immediately|right now|asap|as soon as possible|"
    r"(?:is|are) blocked|at a standstill|every minute counts)\b",
    re.I,
)


def answer(text: str) -> str:
    """The JSON that the ticket deserves, by its words alone."""
    counts = {name: len(cue.findall(text)) for name, cue in _CATEGORIES.items()}
    best = max(counts, key=lambda name: counts[name])
    category = best if counts[best] else "question"
    # patience is looked for first: "not urgent" holds the word "urgent"
    priority = "low" if _LOW.search(text) else "high" if _HIGH.search(text) else "normal"
    return _json(category, priority)


def _json(category: str, priority: str) -> str:
    return json.dumps({"category": category, "priority": priority})


_ISSUES = {
    "billing": (
        "The invoice for {month} is wrong.",
        "I need an invoice for the {thing}.",
        "Invoice {number} has no VAT number.",
        "My payment for {month} was declined.",
        "I made the payment for the {thing} twice.",
        "Where is my refund for the {thing}?",
        "The refund for invoice {number} is missing.",
    ),
    "technical": (
        "The {screen} crashes on {day}.",
        "The {screen} crashes with error {number}.",
        "I see error {number} on the {screen}.",
        "The {screen} shows an error since {day}.",
        "There is an error on the {screen}.",
        "The {screen} freezes since {day}.",
        "The {screen} freezes and then crashes.",
    ),
    "account": (
        "I forgot my password on {day}.",
        "My password is wrong since {day}.",
        "How does {name} change the password?",
        "I cannot sign in from {city}.",
        "{name} cannot sign in since {day}.",
        "Please add {name} as a user.",
        "Please remove the user {name}.",
    ),
    "delivery": (
        "My parcel {number} is not here.",
        "My parcel is in {city} since {day}.",
        "The parcel with the {thing} came open.",
        "The courier lost my {thing}.",
        "The courier did not come on {day}.",
        "When will my {thing} be delivered?",
        "My {thing} was delivered to {city}.",
    ),
    "question": (
        "Do you have an office in {city}?",
        "Do you have a {thing} in green?",
        "Do you offer a workshop in {month}?",
        "Is the {thing} made in {city}?",
        "Is there a manual for the {thing}?",
        "Is your office open on {day}?",
        "What are your opening hours on {day}?",
    ),
}
_HASTE = {
    "high": (
        "This is urgent!",
        "It is an emergency!",
        "Please answer immediately.",
        "I need it right now.",
    ),
    "low": (
        "There is no hurry.",
        "No rush.",
        "This can wait.",
        "Take your time.",
    ),
    "normal": ("", "", "Thank you.", "Please help."),
}
_SCREENS = words(
    """
    start page, report view, chart editor, export tool, map view, search panel, photo upload,
    team board, settings page, mobile app, inbox, planner
    """,
    ",",
)
_OPENINGS = ("", "", "Hello,", "Hi,", "Good morning,", "Dear team,")


def draw(rng: Random) -> tuple[str, str]:
    """A ticket, and the answer that its writer had in mind."""
    category, priority = pick(rng, tuple(_ISSUES)), pick(rng, tuple(_HASTE))
    issue = pick(rng, _ISSUES[category]).format(
        month=pick(rng, MONTHS),
        day=pick(rng, DAYS),
        thing=pick(rng, GOODS),
        number=rng.randint(100, 9999),
        screen=pick(rng, _SCREENS),
        city=pick(rng, CITIES),
        name=pick(rng, FIRST_NAMES),
    )
    body = [issue, pick(rng, _HASTE[priority])]
    if priority != "normal" and rng.random() < 0.25:
        body.reverse()
    closing = rng.choice(("", "", "", f"Best, {person(rng)}"))
    return joined([pick(rng, _OPENINGS), *body, closing]), _json(category, priority)
