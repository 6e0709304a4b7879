"""E-mails for bench/student_schema.py: half of them like those that the student has learnt from.

The others are other e-mails, or have quotation marks, braces and JSON in them, other alphabets, no
order or several, or they are cut off, in capitals, doubled, or made of noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random

from bench.student_scene import TASK
from demo.tasks.tasks import TASKS

LIKE, UNLIKE = "like training", "unlike training"


def inputs(seed: int) -> Iterator[tuple[str, str]]:
    """Kinds and texts without end, the same ones for the same seed; the kinds in turn."""
    rng = Random(f"student-schema/{seed}")
    known, others = TASK.texts(seed), [t for t in TASKS.values() if t is not TASK]
    while True:
        yield LIKE, next(known)
        twist = rng.choice(_TWISTS)
        base = next(known) if rng.random() < 0.6 else rng.choice(others).draw(rng)[0]
        yield UNLIKE, twist(base, rng)


def _quoted(text: str, rng: Random) -> str:
    return " ".join(f'"{word}"' if rng.random() < 0.3 else word for word in text.split())


def _json_inside(text: str, rng: Random) -> str:
    inside = json.dumps({"order_id": rng.randrange(10**6), "note": text[:20], "amount": None})
    return f"{text[:60]} {inside} {{ {text[60:90]}"


def _other_alphabet(text: str, rng: Random) -> str:
    words = ("заказ", "注文番号", "παραγγελία", "طلب", "Rückerstattung", "día", "№", "📦", "¥")
    return " ".join(rng.choice(words) if rng.random() < 0.35 else w for w in text.split())


def _cut_off(text: str, rng: Random) -> str:
    return text[: rng.randint(1, max(1, len(text) - 1))]


def _doubled(text: str, rng: Random) -> str:
    return "\n\n".join([text, TASK.draw(rng)[0], TASK.draw(rng)[0]])


def _noise(_text: str, rng: Random) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789 -_/\\\"'{}[]:,.$€#"
    return "".join(rng.choice(letters) for _ in range(rng.randint(1, 160)))


def _other_numbers(text: str, rng: Random) -> str:
    return "".join(
        rng.choice("0123456789XYZ-/") if c.isdigit() and rng.random() < 0.5 else c for c in text
    )


_TWISTS: tuple[Callable[[str, Random], str], ...] = (
    lambda text, _: text,  # of another task, mostly
    lambda text, _: text.upper(),
    lambda text, _: f"{text}\n\t{text[::-1]}",
    _quoted,
    _json_inside,
    _other_alphabet,
    _cut_off,
    _doubled,
    _noise,
    _other_numbers,
)
