"""Words that vary without meaning anything to the demo's tasks: people, places, things, times."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random


def words(text: str, separator: str | None = None) -> tuple[str, ...]:
    """The words of a list that is written as one text."""
    return tuple(part.strip() for part in text.split(separator))


FIRST_NAMES = words("""
    Agata Benoit Camila Dmitri Esra Fabian Gloria Hamza Ines Joel Katya Luca Malik Noor Odile Pavel
    Renata Silvio Tamar Ugo Vesna Wanda Yara Zoran Amelie Bjorn Chiara Dieter Emre Freya Gideon
    Hilda Imran Jana Kenji Leila Mateo Nadine Otto Paloma Ravi Sonja Tibor Ulla Vikram Wim Yuki
""")
LAST_NAMES = words("""
    Albrecht Bianchi Castillo Dragan Engel Fontaine Gruber Haas Ivers Jovic Kowalski Lambert
    Mancini Nagy Okafor Pereira Rinaldi Sato Thorsen Unger Vidal Wagner Yamada Zeman Brandt Calvo
    Duarte
""")
CITIES = words("""
    Bergen Bilbao Cork Dresden Gdansk Ghent Graz Izmir Krakow Leeds Lyon Malmo Nantes Osaka Perth
    Pune Quito Riga Split Tallinn Turin Utrecht Valencia Zagreb
""")
GOODS = words(
    """
    lantern, backpack, rice cooker, hair dryer, wall clock, bookcase, rain jacket, bike lock,
    tea pot, monitor arm, bread maker, floor fan, sleeping bag, garden hose, pressure pan,
    night light, wool blanket, card game, picture frame, hand mixer, travel mug, door mat,
    guitar stand, bath scale, desk organizer
    """,
    ",",
)
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("""
    January February March April May June July August September October November December
""")


def pick(rng: Random, options: Sequence[str]) -> str:
    """One of the options, each as likely as the others."""
    return options[rng.randrange(len(options))]


def person(rng: Random) -> str:
    """A first name, half the time with a last name."""
    first = pick(rng, FIRST_NAMES)
    return first if rng.random() < 0.5 else f"{first} {pick(rng, LAST_NAMES)}"


def joined(parts: Sequence[str]) -> str:
    """The parts that are not empty, with a space between."""
    return " ".join(part for part in parts if part)


def capital(text: str) -> str:
    """The text with its first letter in upper case, the rest untouched."""
    return text[:1].upper() + text[1:]
