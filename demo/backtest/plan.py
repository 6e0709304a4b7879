"""The settings of a backtest, and those of the product in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from pydantic import ValidationError

from demo.backtest.logs import Layout, lay_out, read_rows
from demo.backtest.replay import MODEL
from demo.base.student_settings import tiny_student
from demo.drive.driver import loopback_teacher
from distill.evaluate.scorers.registry import is_paid
from store.errors import BacktestError, ConfigError
from store.jsontext import JsonObject
from store.settings.config import TAG
from store.settings.tasks import GateSettings, RolloutSettings, TaskSettings
from store.settings.teachers import Price

DEFAULT_TASK = "backtest"
DEFAULT_PRICE = Price(2e-6, 8e-6)  # US dollars a token
MIN_TRACES = 10  # the least that `min_traces` can be set to
NO_AUDITS = 1e-12  # the teacher only knows the recorded answers
ONE_RUN_S = 7 * 24 * 3600.0  # a cooldown that outlasts every backtest


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """The settings of one backtest."""

    file: Path
    test: Path | None = None  # None: the last 20 % of the file
    task: str = DEFAULT_TASK
    limit: int | None = None  # rows sent as traffic; None: 80 % of what is not test
    settings: TaskSettings | None = None  # None: those of the tiny base, for so many rows
    thresholds: tuple[float, ...] = ()  # the lowest is served under, all are reported
    price: Price = DEFAULT_PRICE  # of the teacher
    keep: Path | None = None  # folder that stays; None: a temporary one
    timeout_s: float = 7200  # of the run
    concurrency: int = 8  # requests under way at a time
    teacher_latency_s: float = 0  # the delay of each answer of the replay teacher


def read_layout(what: Backtest) -> Layout:
    """Reads the files and deals their rows out. Raises BacktestError when there are too few."""
    if not TAG.fullmatch(what.task):
        raise BacktestError(f"not a task's tag: it is to match {TAG.pattern}")
    rows = read_rows(what.file)
    test = read_rows(what.test) if what.test else None
    layout = lay_out(rows, test=test, limit=what.limit)
    if len(layout.traffic) < MIN_TRACES:
        raise BacktestError(
            f"{what.file}: {len(layout.traffic)} rows for traffic; a run needs {MIN_TRACES}, "
            "and a certificate at the usual threshold some hundreds"
        )
    return layout


def task_settings(what: Backtest, layout: Layout) -> TaskSettings:
    """The settings of the backtest's task. Raises ConfigError for impossible thresholds."""
    settings = what.settings or tiny_student(len(layout.traffic))
    return run_settings(with_thresholds(settings, what.thresholds), layout)


def run_settings(settings: TaskSettings, layout: Layout) -> TaskSettings:
    """The task's settings, so that one run starts when all traffic is in, and no second one.

    `amplify.target` is limited by the pool, as the replay teacher invents nothing. Its answers
    never vary, so the teacher's self-consistency is not measured. Raises BacktestError for scorer
    `judge`: there are no recorded verdicts.
    """
    if is_paid(settings.evaluate.scorer):
        raise BacktestError("recorded answers cannot judge: set evaluate.scorer to another")
    target = min(settings.amplify.target, len(layout.pool))
    return settings.model_copy(
        update={
            "min_traces": len(layout.traffic),
            "cooldown_s": ONE_RUN_S,
            "paused": False,
            # the test rows are the live traffic here: nothing is left for steps to wait for
            "rollout": RolloutSettings(shares=[1.0], min_comparisons=0, confirm=False),
            "audit": settings.audit.model_copy(
                update={"first_share": NO_AUDITS, "last_share": NO_AUDITS}
            ),
            "amplify": settings.amplify.model_copy(update={"target": target}),
            "evaluate": settings.evaluate.model_copy(update={"teacher_recheck": 0.0}),
        }
    )


def product_config(teacher_url: str, settings: TaskSettings, price: Price) -> JsonObject:
    """A config as a user would write it: the replay teacher, its price, and the task's settings."""
    return {
        "model_list": [loopback_teacher(MODEL, teacher_url, price)],
        "scheduler": {"due_seconds": 1.0},
        "task_defaults": settings.model_dump(mode="json"),
    }


def with_thresholds(settings: TaskSettings, thresholds: Sequence[float]) -> TaskSettings:
    """The settings with the lowest of these thresholds. Raises ConfigError for impossible ones."""
    gates = []
    for threshold in thresholds:
        try:
            gates.append(
                GateSettings.model_validate({**settings.gate.model_dump(), "threshold": threshold})
            )
        except ValidationError:
            raise ConfigError(f"the threshold {threshold:g} is not between 0 and 1") from None
    if not gates:
        return settings
    return settings.model_copy(update={"gate": min(gates, key=attrgetter("threshold"))})


@contextmanager
def working_folder(keep: Path | None) -> Iterator[Path]:
    """The folder of the product: a temporary one, or the one to keep, which must be empty."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="understudy-backtest-") as name:
            yield Path(name)
        return
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise BacktestError(f"{keep}: not an empty folder; name a new one")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep.absolute()
