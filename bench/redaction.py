"""The cost of the ready-made redaction rules, and of libraries in their place.

    python -m bench.redaction [--json]

CPU microseconds a kilobyte of text, the median of several rounds, each rule by itself, with its
check as it is and with another one:

- `credit_card`: python-stdnum's check digit (as it is), or one written out here
- `iban`: python-stdnum's lengths and check digits (as it is), or a table and a sum written out here
- `phone`: rules of our own (as it is), or `phonenumbers`

The texts: support mail without any such number, with one of each kind in 2 KB, and lists of such
numbers alone, as a worst case.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import median
from time import process_time

import phonenumbers
from rich.console import Console
from rich.table import Table

from store.privacy import rules
from store.privacy.redaction import Redaction
from store.privacy.regex import Rule, rules_of
from store.privacy.rules import Check, Span
from store.privacy.settings import RedactRule

ROUNDS = 9
ROUND_S = 0.2  # CPU seconds of a round, at least
MAIL = (
    "Hello, I ordered the blue lamp (article 4711-B) on 3 May and paid 49.90 EUR at once, but "
    "the tracking page has said 'in transit' since Tuesday, 10:45. My customer number is "
    "K-2093341 and the order is 550e8400-e29b-41d4-a716-446655440000. Could you please look into "
    "it, or tell me whom to write to? I am away from 2024-06-01 on. Kind regards, Ada\n"
)
NUMBERS = {
    "credit_card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "phone": "+49 30 901820",
}
TEXTS = {
    "mail": MAIL * 6,
    "mail with one of each in 2 KB": MAIL * 3 + "; ".join(NUMBERS.values()) + MAIL * 3,
}
IBAN_LENGTHS = {"DE": 22, "GB": 22, "FR": 27, "NO": 15, "MT": 31, "BE": 16}


def card_by_hand(data: bytes, start: int, end: int) -> Span | None:
    """As the rule's own check, but for the sum of ISO/IEC 7812-1."""
    if not rules._begins(data, start):
        return None
    while not _luhn(data[start:end]):
        last = rules._LAST_GROUP.search(data, start, end)
        if last is None or len(rules._DIGIT.findall(data, start, last.start())) < rules._MIN_CARD:
            return None
        end = last.start()
    return start, end


def _luhn(number: bytes) -> bool:
    digits = [byte - 48 for byte in number if byte not in b" -"]
    doubled = (digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def iban_by_hand(data: bytes, start: int, end: int) -> Span | None:
    """A country's length from a table, and the sum of ISO 7064."""
    length = IBAN_LENGTHS.get(data[start : start + 2].decode().upper(), 0)
    characters, at = bytearray(), start
    while at < end and len(characters) < length:
        if data[at] not in b" -":
            characters.append(data[at])
        at += 1
    text = characters.decode()
    number = int("".join(str(int(letter, 36)) for letter in text[4:] + text[:4]) or "0")
    return (start, at) if number % 97 == 1 else None


def phone_by_phonenumbers(data: bytes, start: int, end: int) -> Span | None:
    """Whether a number with a country code can be one by the tables of `phonenumbers`."""
    while data[end - 1] not in b"0123456789":
        end -= 1
    try:
        number = phonenumbers.parse(data[start:end].decode(), None)
    except phonenumbers.NumberParseException:
        return None
    return (start, end) if phonenumbers.is_possible_number(number) else None


OTHER_CHECKS: dict[str, Check] = {
    "credit_card": card_by_hand,
    "iban": iban_by_hand,
    "phone": phone_by_phonenumbers,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds a kilobyte of one text."""

    rule: str
    text: str
    as_it_is: float
    other: float


def measure() -> list[Cost]:
    """Every rule on every text, both ways."""
    costs = []
    for rule in rules_of([RedactRule(name=name) for name in NUMBERS]):
        other = replace(rule, check=OTHER_CHECKS[rule.name])
        for name, text in {**TEXTS, "lists of numbers": f"{NUMBERS[rule.name]}; " * 60}.items():
            costs.append(Cost(rule.name, name, _cost(rule, text), _cost(other, text)))
    return costs


def _cost(rule: Rule, text: str) -> float:
    redact = Redaction([rule]).text
    redact(text)
    kilobytes = len(text.encode()) / 1024
    return median(_round(redact, text) / kilobytes * 1e6 for _ in range(ROUNDS))


def _round(redact: Callable[[str], str], text: str) -> float:
    """CPU seconds of one call."""
    calls, began = 0, process_time()
    while (spent := process_time() - began) < ROUND_S:
        redact(text)
        calls += 1
    return spent / calls


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    arguments = parser.parse_args()
    costs = measure()
    if arguments.json:
        print(json.dumps([asdict(cost) for cost in costs], indent=2))
        return
    table = Table("rule", "text", "as it is", "other check", title="CPU µs a KB, median")
    for cost in costs:
        table.add_row(cost.rule, cost.text, f"{cost.as_it_is:.1f}", f"{cost.other:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
