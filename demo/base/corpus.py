"""The pretraining text: a mix of families of instructions, generated without end.

Every family draws its wording, keys, labels and values at random, so that a student learns to do
what a prompt says instead of learning prompts by heart. None of the demo's tasks is among them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from demo.base import bank, copying, extraction, labels, prose
from demo.base.draw import GeneratedExample

Family = Callable[[random.Random], GeneratedExample]

# How often each is drawn; the harder ones more often.
FAMILIES: dict[Family, float] = {
    copying.echo: 1.0,
    copying.entries: 0.7,
    copying.words: 0.8,
    copying.shots: 0.6,
    extraction.pairs: 2.0,
    extraction.fields: 3.2,
    extraction.command: 1.0,
    extraction.normal_form: 0.8,
    labels.topic: 1.5,
    labels.tone: 1.1,
    labels.topic_and_tone: 1.2,
    labels.haste: 1.0,
    labels.rule: 1.0,
    bank.bank: 1.0,
    prose.reply: 1.0,
    prose.carry_on: 0.3,
}

# Short copying comes first: attention that copies is what everything else is built on, and it
# forms sooner without the rest.
EASY: dict[Family, float] = {
    copying.echo: 3.0,
    extraction.pairs: 3.0,
    copying.entries: 1.0,
    copying.shots: 1.0,
    copying.words: 1.0,
    extraction.normal_form: 1.0,
}


def draw(
    rng: random.Random, families: dict[Family, float] = FAMILIES
) -> tuple[str, GeneratedExample]:
    """The name of a family, and an example of it."""
    family = rng.choices(list(families), list(families.values()))[0]
    return family.__name__, family(rng)


def examples(seed: int) -> Iterator[GeneratedExample]:
    """Examples without end, the same ones for the same seed."""
    rng = random.Random(seed)
    while True:
        yield draw(rng)[1]
