"""The registry of faults: what each does, how often it is drawn, and which others it excludes."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from tests.campaign.scene import Scene

# What no two faults touch at the same time. A full disk and the end of a worker, for example, are
# a loss that nobody can prevent: what could not be written is in the worker's memory alone.
Part = Literal["server", "workers", "control plane", "disk", "clock", "students", "teacher"]
Act = Callable[[Scene, random.Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. `act` does it, lasts as long as it lasts, and takes it back."""

    name: str
    act: Act
    weight: float  # relative to the others
    touches: frozenset[Part]


FAULTS: dict[str, Fault] = {}


def fault(name: str, *touches: Part, weight: float = 1.0) -> Callable[[Act], Act]:
    """Registers a fault under a name."""

    def register(act: Act) -> Act:
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name, act, weight, frozenset(touches))
        return act

    return register


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault of an episode."""

    number: int
    fault: Fault
    seed: str  # of what it draws itself

    @property
    def draw(self) -> random.Random:
        return random.Random(self.seed)


def plan(seed: str, count: int) -> list[Planned]:
    """The faults of an episode: the same for the same seed."""
    draw = random.Random(seed)
    known = list(FAULTS.values())
    drawn = draw.choices(known, weights=[one.weight for one in known], k=count)
    return [Planned(number, one, f"{seed} {number}") for number, one in enumerate(drawn)]
