"""Draws values at random: people, codes, amounts, dates; and what an example of the corpus is."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from demo.base import english, lexicon

T = TypeVar("T")

CAPITALS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


@dataclass(frozen=True)
class GeneratedExample:
    """One generated exchange; some families ask without a system prompt."""

    system: str | None
    user: str
    answer: str

    def messages(self) -> list[dict[str, str]]:
        """The exchange in chat format, the answer last."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [
            *system,
            {"role": "user", "content": self.user},
            {"role": "assistant", "content": self.answer},
        ]


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One of them, each as likely."""
    return items[rng.randrange(len(items))]


def chance(rng: random.Random, probability: float) -> bool:
    """True that often."""
    return rng.random() < probability


def digits(rng: random.Random, shortest: int, longest: int) -> str:
    """A string of decimal digits."""
    return "".join(str(rng.randrange(10)) for _ in range(rng.randint(shortest, longest)))


def letters(rng: random.Random, shortest: int, longest: int) -> str:
    """A string of capital letters."""
    return "".join(pick(rng, CAPITALS) for _ in range(rng.randint(shortest, longest)))


def invented(rng: random.Random, capital: bool | None = None) -> str:
    """A word that exists nowhere, so that only copying can produce it."""
    word = "".join(pick(rng, lexicon.SYLLABLES) for _ in range(rng.randint(2, 3)))
    if capital is None:
        capital = chance(rng, 0.6)
    return word.capitalize() if capital else word


def person(rng: random.Random) -> str:
    """A first name, or a full one."""
    first = pick(rng, lexicon.FIRST_NAMES) if chance(rng, 0.6) else invented(rng, True)
    if chance(rng, 0.5):
        return first
    last = pick(rng, lexicon.LAST_NAMES) if chance(rng, 0.6) else invented(rng, True)
    return f"{first} {last}"


def company(rng: random.Random) -> str:
    """A firm with or without its legal form."""
    return invented(rng, True) + pick(rng, ("", "", " Ltd", " GmbH", " Inc", " Group", " Labs"))


def city(rng: random.Random) -> str:
    """A known city, or an invented one."""
    return pick(rng, lexicon.CITIES) if chance(rng, 0.6) else invented(rng, True)


def code(rng: random.Random) -> str:
    """An identifier as businesses print them."""
    shape = rng.randrange(6)
    if shape == 0:
        return f"{letters(rng, 1, 3)}-{digits(rng, 3, 6)}"
    if shape == 1:
        return f"#{digits(rng, 4, 7)}"
    if shape == 2:
        return digits(rng, 5, 8)
    if shape == 3:
        return letters(rng, 2, 2) + digits(rng, 3, 5)
    if shape == 4:
        return f"{letters(rng, 3, 3)}/{digits(rng, 2, 4)}/{digits(rng, 2, 3)}"
    return f"{letters(rng, 2, 4)}_{digits(rng, 2, 5)}"


def money(rng: random.Random) -> tuple[str, str]:
    """An amount as it is written, and as a plain number."""
    low, high = pick(rng, ((1, 99), (100, 999), (1000, 9999)))
    whole = rng.randint(low, high)
    cents = 0 if chance(rng, 0.3) else rng.randrange(100)
    plain = f"{whole}.{cents:02d}"
    written = f"{whole:,}.{cents:02d}" if chance(rng, 0.5) else plain
    if cents == 0 and chance(rng, 0.5):
        written = written[:-3]
    sign = pick(rng, tuple(lexicon.CURRENCIES))
    name = lexicon.CURRENCIES[sign]
    shown = (sign + written, f"{written} {name}", written + sign, f"{name} {written}")
    return pick(rng, shown), plain


def date(rng: random.Random) -> tuple[str, str]:
    """A day as it is written, and as YYYY-MM-DD."""
    year, number, day = rng.randint(2018, 2029), rng.randint(1, 12), rng.randint(1, 28)
    month = lexicon.MONTHS[number - 1]
    iso = f"{year}-{number:02d}-{day:02d}"
    written = (
        iso,
        f"{month} {day}, {year}",
        f"{day} {month} {year}",
        f"{day:02d}/{number:02d}/{year}",
        f"{month[:3]} {day} {year}",
        f"{day:02d}.{number:02d}.{year}",
    )
    return pick(rng, written), iso


def clock(rng: random.Random) -> str:
    """A time of day."""
    hour, minute = rng.randrange(24), rng.randrange(60)
    return pick(rng, (f"{hour:02d}:{minute:02d}", f"{hour % 12 + 1} {pick(rng, ('am', 'pm'))}"))


def email(rng: random.Random) -> str:
    """An address at an invented domain."""
    first = pick(rng, lexicon.FIRST_NAMES).lower() if chance(rng, 0.5) else invented(rng, False)
    domain = invented(rng, False) + pick(rng, (".com", ".org", ".net", ".io"))
    return f"{first}{pick(rng, ('.', '_', ''))}{invented(rng, False)}@{domain}"


def value(rng: random.Random) -> str:
    """Anything that may stand in a field."""
    draws: tuple[Callable[[random.Random], str], ...] = (
        person,
        city,
        company,
        invented,
        email,
        code,
        code,
        lambda rng: pick(rng, lexicon.THINGS),
        lambda rng: pick(rng, lexicon.COLOURS),
        lambda rng: pick(rng, lexicon.DAYS),
        lambda rng: money(rng)[0],
        lambda rng: date(rng)[0],
        lambda rng: digits(rng, 1, 4),
        lambda rng: english.phrase(rng, 1, 3),
    )
    return pick(rng, draws)(rng)
