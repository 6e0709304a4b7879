"""What would Understudy have saved on these logs? The real product, run on recorded answers.

    read and lay out → send traffic → wait for the run to end → send the test rows → report

Read `backtest` from top to bottom.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from openai import AsyncOpenAI
from rich.console import Console

from demo.backtest.logs import Layout, LogRow
from demo.backtest.plan import (
    DEFAULT_PRICE,
    DEFAULT_TASK,
    Backtest,
    product_config,
    read_layout,
    task_settings,
    working_folder,
)
from demo.backtest.replay import MODEL, Phase, ReplayTeacher
from demo.backtest.report import Report, build_report
from demo.backtest.thresholds import TestRow, at_thresholds
from demo.backtest.view import bars, show_report, silence
from demo.drive.driver import Product, SentRequest, Status, send
from demo.drive.ramp import is_live
from distill.dataset.answers import describe
from distill.dataset.groups import Member
from distill.dataset.live_groups import LiveGroups
from distill.evaluate.scorers.registry import score
from distill.evaluate.scoring import choose_scorer
from distill.monitor.grouping import member_of
from distill.pipeline.evaluation import read_checks
from distill.pipeline.rows import requests_of_run
from distill.run.progress import Progress
from store.database.database import Database
from store.database.runs import evaluations_of_run
from store.database.traces import confidences_of_student
from store.errors import BacktestError
from store.jsontext import JsonObject
from store.records import (
    OutputKind,
    RunState,
)
from store.settings.config import load_config
from store.settings.tasks import GateSettings, TaskSettings
from store.settings.teachers import Price

RUN_START_TIMEOUT_S = 120  # from the last answer of the traffic until its run is under way
ROUTE_TIMEOUT_S = 60  # from a promotion until the proxy has read it
PIPED_WIDTH = 140  # columns of the report when it does not go to a terminal
ROUTE_READ_S = 1.5  # the proxy reads a new route within a second


async def backtest(what: Backtest, progress: Progress) -> Report:
    """Runs the real product on recorded answers and reports what it did with the test rows.

    Raises BacktestError or ProductError when the product fails. A rejected task has a report like
    any other.
    """
    began = time.monotonic()
    layout = await asyncio.to_thread(read_layout, what)
    settings = task_settings(what, layout)
    teacher = ReplayTeacher(layout)
    seconds: dict[str, float] = {}
    with working_folder(what.keep) as folder:
        async with (
            teacher.server(latency_s=what.teacher_latency_s) as server,
            Product(folder, product_config(server.base_url, settings, what.price)) as product,
            product.client() as client,
        ):
            with _timed(seconds, "traffic"):
                sent = await _send(client, layout.traffic, what, "traffic", progress)
            _check_traffic(sent)

            teacher.phase = Phase.ANSWERS
            await _run_started(product, what)
            status = await _run_ended(product, what, progress)
            seconds |= status["last_run"]["stages"]

            teacher.phase = Phase.TEST
            with _timed(seconds, "test"):
                exchanges = await _send(client, layout.test, what, "test", progress)
        agrees = _agrees(settings, layout, status)
        sections = await asyncio.to_thread(
            _at_thresholds, what, settings.gate, product, status, layout, exchanges, agrees
        )
    seconds["total"] = time.monotonic() - began

    report = build_report(
        task=what.task,
        layout=layout,
        settings=settings,
        price=what.price,
        ledger=teacher.ledger,
        status=status,
        exchanges=exchanges,
        agrees=agrees,
        seconds=seconds,
    )
    return {**report, "thresholds": sections}


def run(
    file: Path,
    *,
    test: Path | None = None,
    task: str | None = None,
    limit: int | None = None,
    as_json: bool = False,
    config: Path | None = None,
    thresholds: Sequence[float] = (),
    price_in: float = DEFAULT_PRICE.input * 1e6,
    price_out: float = DEFAULT_PRICE.output * 1e6,
    keep: Path | None = None,
) -> int:
    """The command: shows progress on stderr and the report on stdout. Returns the exit code.

    `config`: a config file whose settings of this task are used, instead of those for the tiny
    base. `thresholds`: the product runs with the lowest of them, the report has all. Prices are US
    dollars per million tokens. A rejected task is a result: exit code 0.
    """
    tag = task or DEFAULT_TASK
    what = Backtest(
        file=file,
        test=test,
        task=tag,
        limit=limit,
        settings=load_config(config).task(tag) if config else None,
        thresholds=tuple(thresholds),
        price=Price(price_in / 1e6, price_out / 1e6),
        keep=keep,
    )
    if as_json:
        print(json.dumps(asyncio.run(backtest(what, silence))))
        return 0
    with bars(Console(stderr=True)) as progress:
        report = asyncio.run(backtest(what, progress))
    show_report(report, Console(width=None if sys.stdout.isatty() else PIPED_WIDTH))
    return 0


# ---- during ------------------------------------------------------------------------------------


async def _send(
    client: AsyncOpenAI,
    rows: Sequence[LogRow],
    what: Backtest,
    stage: str,
    progress: Progress,
) -> list[SentRequest]:
    done = 0
    progress(stage, 0, len(rows), "")

    def tell(exchange: SentRequest) -> None:
        nonlocal done
        done += 1
        progress(stage, done, len(rows), exchange.route or "")

    return await send(
        client,
        [row.messages for row in rows],
        task=what.task,
        model=MODEL,
        concurrency=what.concurrency,
        done=tell,
    )


def _check_traffic(sent: Sequence[SentRequest]) -> None:
    """The run waits for every row, so that one which failed would make it wait for ever."""
    failed = Counter(e.error for e in sent if e.error)
    if failed:
        kinds = ", ".join(f"{kind} ({n} times)" for kind, n in failed.most_common())
        raise BacktestError(
            f"{failed.total()} of {len(sent)} requests of the traffic failed: {kinds}"
        )


async def _run_started(product: Product, what: Backtest) -> None:
    await product.wait(
        what.task,
        lambda status: status["stage"] is not None or status["last_run"] is not None,
        timeout_s=RUN_START_TIMEOUT_S,
    )


async def _run_ended(product: Product, what: Backtest, progress: Progress) -> Status:
    """Waits until the run has its verdict and, on promotion, until the student serves."""

    def show(status: Status) -> None:
        if stage := status["stage"]:
            progress(stage["stage"], stage["done"], stage["total"], stage["note"])

    def ended(status: Status) -> bool:
        last = status["last_run"]
        return last is not None and status["stage"] is None and RunState(last["state"]).ended

    status = await product.wait(what.task, ended, timeout_s=what.timeout_s, every_s=1.0, watch=show)
    last_run = status["last_run"]
    if last_run["state"] == RunState.FAILED:
        raise BacktestError(f"the run failed: {last_run['reason']}")
    if last_run["state"] == RunState.PROMOTED:
        progress("route", 0, 1, "starting the student")
        status = await product.wait(
            what.task,
            is_live,
            timeout_s=ROUTE_TIMEOUT_S,
        )
        await asyncio.sleep(ROUTE_READ_S)
        progress("route", 1, 1, "")
    return status


# ---- after -------------------------------------------------------------------------------------


def _agrees(settings: TaskSettings, layout: Layout, status: Status) -> Callable[[str, str], bool]:
    """Whether an answer is as good as the recorded one, by the scorer of the run."""
    how = settings.evaluate
    if status["certificate"]:
        how = how.model_copy(update={"scorer": status["certificate"]["scorer"]})
    scorer = choose_scorer(describe([row.answer for row in layout.traffic]), how)

    def agrees(recorded: str, answer: str) -> bool:
        return scorer.agrees(score(scorer.name, recorded, answer))

    return agrees


def _at_thresholds(  # noqa: PLR0917  (each is a result of the steps before)
    what: Backtest,
    gate: GateSettings,
    product: Product,
    status: Status,
    layout: Layout,
    exchanges: Sequence[SentRequest],
    agrees: Callable[[str, str], bool],
) -> list[JsonObject]:
    """What each threshold would have certified and served, by the product's store."""
    scorer = status["last_run"]["detail"].get("evaluated", {}).get("scorer")
    with Database(product.config.database_file, product.config.store) as db:
        evaluations = evaluations_of_run(db, status["last_run"]["run_id"])
        sure = confidences_of_student(db, what.task, status["last_run"]["run_id"])
    groups = _live_groups(layout)
    test_rows = [
        TestRow(
            exchange.route == "student",
            sure.get(exchange.trace or ""),
            exchange.answer is not None and agrees(row.answer, exchange.answer),
            group,
        )
        for row, exchange, group in zip(layout.test, exchanges, groups, strict=True)
    ]
    thresholds = set(what.thresholds) | {gate.threshold}
    output: OutputKind = scorer["output"] if scorer else "text"
    folder = product.config.runs_dir / status["last_run"]["run_id"]
    return at_thresholds(
        sorted(thresholds),
        evaluations,
        gate,
        output,
        test_rows,
        checks=read_checks(folder),
        requests=requests_of_run(folder),
    )


def _live_groups(layout: Layout) -> list[str]:
    """The group of each test row, as the product groups live requests."""
    groups = LiveGroups([_member(row, place) for place, row in enumerate(layout.traffic)])
    return [
        groups.group_of(str(place), _member(row, place)) for place, row in enumerate(layout.test)
    ]


def _member(row: LogRow, place: int) -> Member:
    return member_of(row.messages, (), name=str(place), at=float(place), answer=row.answer)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began
