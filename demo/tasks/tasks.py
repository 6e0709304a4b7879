"""The demo's three tasks, and text for them without end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from demo.tasks import orders, reviews, tickets
from store.jsontext import JsonObject


@dataclass(frozen=True, slots=True)
class DemoTask:
    """One task of the demo."""

    name: str  # the tag that its requests carry
    system: str  # its production prompt
    answer: Callable[[str], str]  # the stand-in teacher's answer: a pure function of the text
    draw: Callable[[Random], tuple[str, str]]  # one text, and the answer that its writer meant
    policy: JsonObject  # the stand-in teacher's TaskPolicy of the task

    def messages(self, text: str) -> list[dict[str, str]]:
        """The request's messages as the demo's clients send them."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": text}]

    def texts(self, seed: int | str) -> Iterator[str]:
        """Distinct texts without end, the same ones for the same seed."""
        rng = Random(f"{self.name}/{seed}")
        seen: set[str] = set()
        while True:
            text, _ = self.draw(rng)
            if text not in seen:
                seen.add(text)
                yield text


TASKS = {
    module.NAME: DemoTask(module.NAME, module.SYSTEM, module.answer, module.draw, module.POLICY)
    for module in (tickets, orders, reviews)
}


def task_of(text: str) -> DemoTask | None:
    """The task whose production prompt is in the text, if any."""
    return next((task for task in TASKS.values() if task.system in text), None)
