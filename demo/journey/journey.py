"""The demo: the whole loop in some minutes, on the real product, without a key or a download.

    send traffic → a run for each task → shadow, canary, live → fresh traffic: who answered, and
    was it right? → a student is damaged: is it detected?

Read `journey` from top to bottom. The teacher is the stand-in of `demo/teacher/teacher.py`, behind
real HTTP; everything else is what a user runs.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from openai import AsyncOpenAI

from demo.backtest.plan import DEFAULT_PRICE
from demo.base.student_settings import tiny_student
from demo.drive.driver import Product, SentRequest, Status, loopback_teacher, send
from demo.drive.ramp import Climb, climb, is_live
from demo.journey.report import judge, task_report, total_report
from demo.journey.sabotage import damage, until_demoted
from demo.journey.view import View
from demo.tasks.tasks import TASKS, DemoTask
from demo.teacher.teacher import MODEL, start_teacher
from store.errors import ProductError
from store.jsontext import JsonObject
from store.records import RunState
from store.settings.teachers import Price

# rows of orders are long and soon learned; reviews are short, and 5 epochs leave one in 25 wrong
EPOCHS = {"ticket-triage": 4, "order-extraction": 2, "review-sentiment": 8}
TRACES = {"ticket-triage": 480, "order-extraction": 340, "review-sentiment": 600}
DAMAGED = "order-extraction"  # whose student is damaged at the end, if it was promoted


@dataclass(frozen=True, slots=True)
class JourneyPlan:
    """The settings of the demo."""

    traces: Mapping[str, int] = field(default_factory=lambda: dict(TRACES))  # until a task's run
    fresh: int = 50  # requests a task afterwards
    synthetic: int = 120  # examples that amplification adds to each task
    threshold: float = 0.9
    rows: int = 15  # live comparisons that each step waits for
    concurrency: int = 8
    teacher_latency_s: float = 0.1  # the delay of each answer of the stand-in
    price: Price = DEFAULT_PRICE
    run_timeout_s: float = 900


async def journey(plan: JourneyPlan, view: View) -> JsonObject:
    """Plays the demo and returns its report. Raises ProductError without progress."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="understudy-demo-") as name:
        folder = Path(name)
        async with await start_teacher(latency_s=plan.teacher_latency_s) as teacher:
            config = product_config(plan, teacher.base_url)
            async with Product(folder, config) as product, product.client() as client:
                view.started(product.base_url, plan)
                errors = await _traffic(client, plan, view)
                statuses = await _runs_ended(product, plan, view)
                climbs = await _climbed(product, client, statuses, plan, view)
                reports, fresh_errors = await _fresh(client, statuses, climbs, plan, view)

            damaged = DAMAGED if climbs.get(DAMAGED) else next(iter(climbs), None)
            if damaged is not None:
                await damage(product.config.runs_dir, statuses[damaged])
            async with Product(folder, config) as product:
                sabotage = await _sabotage(product, damaged, plan, view)
                final = [await product.status(name) for name in TASKS]
    report = total_report(
        tasks=reports,
        sabotage=sabotage,
        statuses=[s for s in final if s is not None],
        settings=asdict(plan),
        client_errors=errors + fresh_errors,
        seconds=time.monotonic() - began,
    )
    view.finished(report)
    return report


async def _traffic(client: AsyncOpenAI, plan: JourneyPlan, view: View) -> int:
    """Sends the traffic that the students learn from. Returns how many requests failed."""
    errors = 0
    for task in TASKS.values():
        count = plan.traces[task.name]
        texts = islice(task.texts("traffic"), count)
        sent = await _send(client, task, texts, count, plan.concurrency, task.name, view)
        errors += sum(e.error is not None for e in sent)
    return errors


async def _climbed(
    product: Product,
    client: AsyncOpenAI,
    statuses: Mapping[str, Status],
    plan: JourneyPlan,
    view: View,
) -> dict[str, Climb]:
    """Sends each promoted task's traffic until its student has all of it."""
    names = [n for n, s in statuses.items() if s["last_run"]["state"] == RunState.PROMOTED]
    with view.ramp(names) as watch:
        async with asyncio.TaskGroup() as group:
            climbing = {
                name: group.create_task(
                    climb(
                        product,
                        client,
                        TASKS[name],
                        until=is_live,
                        seed="ramp",
                        timeout_s=plan.run_timeout_s,
                        watch=partial(watch, name),
                    )
                )
                for name in names
            }
    await asyncio.sleep(1.0)  # the proxy reads a new route within a second
    return {name: done.result() for name, done in climbing.items()}


async def _fresh(
    client: AsyncOpenAI,
    statuses: Mapping[str, Status],
    climbs: Mapping[str, Climb],
    plan: JourneyPlan,
    view: View,
) -> tuple[JsonObject, int]:
    """Sends new texts. Returns each task's report, and how many requests failed."""
    reports, errors = {}, sum(climb.errors for climb in climbs.values())
    for task in TASKS.values():
        texts = list(fresh_texts(task, plan))
        # two at a time, since latency is measured here
        sent = await _send(client, task, texts, plan.fresh, 2, f"{task.name}, fresh", view)
        errors += sum(e.error is not None for e in sent)
        climbed = climbs.get(task.name)
        reports[task.name] = task_report(
            status=statuses[task.name],
            ramp=climbed.as_dict() if climbed else None,
            exchanges=sent,
            right=[e.answer == task.answer(t) for e, t in zip(sent, texts, strict=True)],
        )
    return reports, errors


async def _sabotage(
    product: Product, damaged: str | None, plan: JourneyPlan, view: View
) -> JsonObject | None:
    """Sends traffic to the damaged student until it is demoted; None without a student."""
    if damaged is None:
        return None
    with view.damaged(damaged) as watch:
        return await until_demoted(
            product, TASKS[damaged], timeout_s=plan.run_timeout_s, watch=watch
        )


async def _send(  # noqa: PLR0917  (each says something of the requests)
    client: AsyncOpenAI,
    task: DemoTask,
    texts: Iterable[str],
    total: int,
    concurrency: int,
    title: str,
    view: View,
) -> list[SentRequest]:
    with view.sending(title, total) as sent_one:
        return await send(
            client,
            map(task.messages, texts),
            task=task.name,
            model=MODEL,
            concurrency=concurrency,
            done=sent_one,
        )


def fresh_texts(task: DemoTask, plan: JourneyPlan) -> Iterator[str]:
    """Texts that were not among the traffic."""
    known = set(islice(task.texts("traffic"), plan.traces[task.name]))
    unseen = (text for text in task.texts("fresh") if text not in known)
    return islice(unseen, plan.fresh)


def product_config(plan: JourneyPlan, teacher_url: str) -> JsonObject:
    """The settings of `config.yaml` that the demo runs with."""
    defaults = tiny_student().model_dump()
    defaults["gate"]["threshold"] = plan.threshold
    defaults["split"] = {"train": 0.45, "calibration": 0.15, "heldout": 0.4}
    defaults["rollout"] |= {"shadow_share": 1.0, "min_comparisons": plan.rows}
    defaults["amplify"]["target"] = plan.synthetic
    defaults["amplify"]["concurrency"] = plan.concurrency
    defaults["amplify"]["batch"] = 20
    return {
        "model_list": [loopback_teacher(MODEL, teacher_url, plan.price)],
        "scheduler": {"due_seconds": 1, "health_seconds": 1},
        "tasks": {
            name: {"min_traces": count, "train": {"epochs": EPOCHS[name]}}
            for name, count in plan.traces.items()
        },
        "task_defaults": defaults,
    }


async def _runs_ended(product: Product, plan: JourneyPlan, view: View) -> dict[str, Status]:
    """Waits until each task's run has its verdict."""

    async def one(name: str) -> Status:
        def settled(status: Status) -> bool:
            last = status["last_run"]
            return not status["stage"] and last is not None and RunState(last["state"]).ended

        status = await product.wait(
            name, settled, timeout_s=plan.run_timeout_s, watch=lambda s: view.standing(name, s)
        )
        view.judged(name, status)
        return status

    with view.runs(list(TASKS)):
        statuses = await asyncio.gather(*(one(name) for name in TASKS))
    return dict(zip(TASKS, statuses, strict=True))


def run(*, as_json: bool) -> int:
    """Plays the demo. Returns 0 when every task was promoted and its fresh traffic went well."""
    view = View(to_stderr=as_json)
    try:
        report = asyncio.run(journey(JourneyPlan(), view))
    except ProductError as error:
        view.broke(str(error))
        return 1
    faults = judge(report)
    view.verdict(faults)
    if as_json:
        print(json.dumps({**report, "faults": faults}))
    return 1 if faults else 0
