"""The demo: the whole loop in some minutes, on the real product, without a key or a download.

    send traffic → a run for each task → send fresh traffic → who answered, and was it right?

Read `journey` from top to bottom. The teacher is the stand-in of `demo/teacher.py`, behind real
HTTP; everything else is what a user runs.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from demo.backtest_plan import DEFAULT_PRICE
from demo.driver import Product, Status, loopback_teacher, send
from demo.journey_report import judge, task_report, total_report
from demo.journey_view import View
from demo.student_settings import tiny_student
from demo.tasks import TASKS, DemoTask
from demo.teacher import MODEL, start_teacher
from store.errors import ProductError
from store.models import RunState
from store.teachers import Price

# rows of orders are long and soon learned, reviews are short and need more
EPOCHS = {"ticket-triage": 3, "order-extraction": 2, "review-sentiment": 5}


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo does, and the price at which it counts."""

    traces: int = 360  # requests a task before it is distilled
    fresh: int = 80  # requests a task afterwards
    synthetic: int = 120  # examples that amplification adds to each task
    threshold: float = 0.9
    concurrency: int = 8
    teacher_latency_s: float = 0.1  # what the stand-in waits before each answer
    price: Price = DEFAULT_PRICE
    run_timeout_s: float = 900


async def journey(plan: Plan, view: View) -> dict[str, Any]:
    """Plays the demo and returns its report. Raises ProductError when the product stands still."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="understudy-demo-") as folder:
        async with (
            await start_teacher(latency_s=plan.teacher_latency_s) as teacher,
            Product(Path(folder), product_config(plan, teacher.base_url)) as product,
            product.client() as client,
        ):
            view.started(product.base_url, plan)
            errors = 0
            for task in TASKS.values():
                with view.sending(task.name, plan.traces) as sent_one:
                    sent = await send(
                        client,
                        (
                            task.messages(text)
                            for text in islice(task.texts("traffic"), plan.traces)
                        ),
                        task=task.name,
                        model=MODEL,
                        concurrency=plan.concurrency,
                        done=sent_one,
                    )
                errors += sum(e.error is not None for e in sent)

            statuses = await _runs_ended(product, plan, view)

            reports = {}
            for task in TASKS.values():
                texts = list(fresh_texts(task, plan))
                with view.sending(f"{task.name}, fresh", plan.fresh) as sent_one:
                    sent = await send(
                        client,
                        map(task.messages, texts),
                        task=task.name,
                        model=MODEL,
                        concurrency=2,  # as of a user who waits: latency is what is shown here
                        done=sent_one,
                    )
                errors += sum(e.error is not None for e in sent)
                reports[task.name] = task_report(
                    status=statuses[task.name],
                    exchanges=sent,
                    right=[e.answer == task.answer(t) for e, t in zip(sent, texts, strict=True)],
                )
            final = [await product.status(name) for name in TASKS]
    report = total_report(
        tasks=reports,
        statuses=[s for s in final if s is not None],
        settings=asdict(plan),
        client_errors=errors,
        seconds=time.monotonic() - began,
    )
    view.finished(report)
    return report


def fresh_texts(task: DemoTask, plan: Plan) -> Iterator[str]:
    """Texts that were not among the traffic."""
    known = set(islice(task.texts("traffic"), plan.traces))
    unseen = (text for text in task.texts("fresh") if text not in known)
    return islice(unseen, plan.fresh)


def product_config(plan: Plan, teacher_url: str) -> dict[str, Any]:
    """The settings of `config.yaml` that the demo runs with."""
    defaults = tiny_student().model_dump()
    defaults["min_traces"] = plan.traces
    defaults["gate"]["threshold"] = plan.threshold
    defaults["amplify"]["target"] = plan.synthetic
    defaults["amplify"]["concurrency"] = plan.concurrency
    defaults["amplify"]["batch"] = 20
    return {
        "model_list": [loopback_teacher(MODEL, teacher_url, plan.price)],
        "scheduler": {"due_seconds": 1, "health_seconds": 1},
        "tasks": {name: {"train": {"epochs": epochs}} for name, epochs in EPOCHS.items()},
        "task_defaults": defaults,
    }


async def _runs_ended(product: Product, plan: Plan, view: View) -> dict[str, Status]:
    """Waits until each task's run has its verdict, and a promoted one its route."""

    async def one(name: str) -> Status:
        def settled(status: Status) -> bool:
            last = status["last_run"]
            if status["stage"] or last is None or not RunState(last["state"]).ended:
                return False
            promoted: bool = last["state"] == RunState.PROMOTED
            return not promoted or status["route"]["target"] == "student"

        status = await product.wait(
            name, settled, timeout_s=plan.run_timeout_s, watch=lambda s: view.standing(name, s)
        )
        view.judged(name, status)
        return status

    with view.runs(list(TASKS)):
        found = await asyncio.gather(*(one(name) for name in TASKS))
    await asyncio.sleep(1.0)  # the proxy reads a new route within a second
    return dict(zip(TASKS, found, strict=True))


def run(*, as_json: bool) -> int:
    """Plays the demo. Returns 0 when every task was promoted and its fresh traffic went well."""
    view = View(to_stderr=as_json)
    try:
        report = asyncio.run(journey(Plan(), view))
    except ProductError as error:
        view.broke(str(error))
        return 1
    faults = judge(report)
    view.verdict(faults)
    if as_json:
        print(json.dumps({**report, "faults": faults}))
    return 1 if faults else 0
