"""A bank of made-up classification tasks with arbitrary labels.

The prompts do not say which sentence gets which label: the model has to learn it in its weights, as
an adapter does later from a task's traces.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

from demo.base import english, lexicon
from demo.base.draw import GeneratedExample, invented, pick
from demo.base.extraction import as_json
from demo.base.sentences import dress

TASKS = 80
SEED = 77

_POOL = (*(word for words in lexicon.TOPICS.values() for word in words), *lexicon.THINGS)
_OPENERS = ("Sort", "Label", "Judge", "Tag", "Rate", "Assign", "Mark", "Grade")
_OBJECTS = ("note", "message", "line", "remark", "entry", "post", "text")
_INFINITIVES = ("find", "use", "read", "see", "move", "send", "change", "start", "stop")


@dataclass(frozen=True)
class MadeUp:
    """One task of the bank."""

    system: str
    sentences: dict[str, tuple[str, ...]]  # by label
    key: str | None  # of the JSON answer; None when the answer is the bare label


@functools.cache
def tasks() -> tuple[MadeUp, ...]:
    """The whole bank, the same in every process."""
    rng = random.Random(SEED)
    return tuple(_task(rng) for _ in range(TASKS))


def bank(rng: random.Random) -> GeneratedExample:
    """A sentence of one of the tasks, in other dress each time."""
    task = pick(rng, tasks())
    label = pick(rng, tuple(task.sentences))
    text = dress(rng, pick(rng, task.sentences[label]))
    return GeneratedExample(
        task.system, text, label if task.key is None else as_json({task.key: label})
    )


def _task(rng: random.Random) -> MadeUp:
    count = rng.randint(2, 5)
    if rng.random() < 0.6:
        labels = rng.sample(_POOL, count)
    else:
        labels = [invented(rng, False) for _ in range(count)]
    system = " ".join(
        (
            pick(rng, _OPENERS),
            pick(rng, ("the", "each", "this")),
            pick(rng, _OBJECTS),
            pick(rng, ("by", "for", "into", "with")),
            pick(rng, _POOL),
        )
    )
    system += pick(rng, (".", ":", f". Options: {', '.join(labels)}.", f" ({'|'.join(labels)})"))
    sentences = {label: tuple(_sentence(rng) for _ in range(rng.randint(3, 5))) for label in labels}
    key = pick(rng, (None, "label", "type", "kind", "group", "result", "class"))
    return MadeUp(system, sentences, None if rng.random() < 0.4 else key)


def _sentence(rng: random.Random) -> str:
    first, second = pick(rng, _POOL), pick(rng, _POOL)
    verb, adverb = pick(rng, lexicon.VERBS), pick(rng, lexicon.ADVERBS)
    shapes = (
        f"The {first} {verb} it.",
        f"We {verb} the {first}.",
        f"No {first} after the {second}.",
        f"{first} and {second}, {adverb}.",
        f"Is the {first} {adverb}?",
        f"Our {first} was {verb} {adverb}.",
        f"Why is my {first} {verb}?",
        f"I could not {pick(rng, _INFINITIVES)} the {first}.",
        f"Someone {verb} the {second} {adverb}.",
        f"{english.phrase(rng, 2, 5)} {first} {english.phrase(rng, 1, 3)}",
        english.phrase(rng, 4, 9),
    )
    return pick(rng, shapes)
