"""The rollout of a student: sends traffic until it has reached a step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import openai

from demo.drive.driver import Product, SentRequest, Status, send
from demo.tasks.tasks import DemoTask
from demo.teacher.teacher import MODEL
from store.errors import ProductError
from store.jsontext import JsonObject

BATCH = 8  # requests between two checks of the status


@dataclass(slots=True)
class Climb:
    """Counts of a task's traffic during its rollout."""

    task: str
    requests: int = 0
    errors: int = 0
    wrong: int = 0  # answers that the teacher would not have given
    routes: Counter[str] = field(default_factory=Counter)
    steps: list[JsonObject] = field(default_factory=list)  # in order, each with its beginning
    seconds: float = 0.0

    def as_dict(self) -> JsonObject:
        return {
            "requests": self.requests,
            "errors": self.errors,
            "wrong": self.wrong,
            "by_route": dict(self.routes),
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
        }


async def climb(
    product: Product,
    client: openai.AsyncOpenAI,
    task: DemoTask,
    *,
    until: Callable[[Status], bool],
    seed: str,
    timeout_s: float,
    concurrency: int = 2,
    watch: Callable[[Status], None] = lambda status: None,
) -> Climb:
    """Sends a task's traffic until the condition holds, and records each step.

    Raises ProductError after `timeout_s`.
    """
    counts, texts = Climb(task.name), task.texts(seed)
    began = time.monotonic()
    while True:
        status = await product.status(task.name)
        if status is not None:
            watch(status)
            _note_step(counts, status, time.monotonic() - began)
            if until(status):
                counts.seconds = time.monotonic() - began
                return counts
        if time.monotonic() - began > timeout_s:
            where = status["route"]["reason"] if status else "no status"
            raise ProductError(f"task {task.name}: not there after {timeout_s:.0f} s; {where}")
        _count(counts, task, *await _batch(client, task, texts, concurrency))


async def _batch(
    client: openai.AsyncOpenAI, task: DemoTask, texts: Iterator[str], concurrency: int
) -> tuple[list[str], list[SentRequest]]:
    batch = [next(texts) for _ in range(BATCH)]
    sent = await send(
        client, map(task.messages, batch), task=task.name, model=MODEL, concurrency=concurrency
    )
    return batch, sent


def _count(counts: Climb, task: DemoTask, texts: list[str], sent: list[SentRequest]) -> None:
    for text, exchange in zip(texts, sent, strict=True):
        counts.requests += 1
        counts.errors += exchange.error is not None
        counts.wrong += exchange.error is None and exchange.answer != task.answer(text)
        counts.routes[exchange.route or "none"] += 1


def _note_step(counts: Climb, status: Status, seconds: float) -> None:
    route = status["route"]
    step = {"step": step_of(status), "share": route.get("share", 0.0)}
    if not counts.steps or {k: counts.steps[-1][k] for k in step} != step:
        counts.steps.append(
            {**step, "after_s": round(seconds, 1), "after_requests": counts.requests}
        )


def step_of(status: Status) -> str:
    """The step that a task's route is on; `teacher` when it has no student now."""
    route = status["route"]
    return str(route["step"]) if route["target"] == "student" else "teacher"


def is_live(status: Status) -> bool:
    """Whether the student serves all traffic that it is certified for."""
    return step_of(status) == "live"
