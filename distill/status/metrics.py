"""The status as metrics for Prometheus: traces, runs, students, money, by task."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from distill.status.status import Status, TaskStatus

STEPS = ("none", "shadow", "canary", "live")  # of a student, as the value of a gauge

_TASK = ("task",)


def page(status: Status, accept: str) -> tuple[str, bytes]:
    """Content type and text, in the format that the Accept header asks for."""
    encode, kind = choose_encoder(accept)
    return kind, encode(_Collector(status))


class _Collector:
    """The interface that prometheus_client collects metrics through."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        return families(self._status)


def families(status: Status) -> list[Metric]:
    """The metrics of a status. A number that is not known has no sample."""
    metrics: list[Metric] = [
        _gauge("store_ok", "1 while the store takes what is journalled.", status.store.ok),
        CounterMetricFamily(
            "understudy_collected_traces",
            "Traces taken into the store since the control plane started.",
            value=status.store.collected,
        ),
        CounterMetricFamily(
            "understudy_damaged_lines",
            "Lines of the journal that could not be read.",
            value=status.store.damaged,
        ),
    ]
    by_task: tuple[tuple[str, str, Callable[[TaskStatus], float | None]], ...] = (
        ("task_traces", "Logged requests.", lambda t: t.traces),
        ("task_new_traces", "Answers of the teacher that no run has seen.", lambda t: t.new_traces),
        ("task_run_under_way", "1 while a run is under way.", lambda t: t.stage is not None),
        ("task_paused", "1 while the task is paused.", lambda t: t.paused is not None),
        ("task_forced", "1 while a student serves past the gate.", lambda t: t.forced is not None),
        (
            "task_student_step",
            "0: no student; 1: shadow; 2: canary; 3: live.",
            lambda t: STEPS.index(t.live.step if t.live else STEPS[0]),
        ),
        ("task_student_share", "Of the traffic, 0 to 1.", lambda t: t.live.share if t.live else 0),
        (
            "task_lower_bound",
            "Of the student's agreement with the teacher, by its last certificate.",
            lambda t: (t.certificate or {}).get("lower_bound"),
        ),
        (
            "task_threshold",
            "What that bound had to reach.",
            lambda t: (t.certificate or {}).get("threshold"),
        ),
        ("task_cost_usd", "The teacher's answers to clients.", lambda t: t.cost_usd.traffic),
        ("task_distilling_usd", "The teacher's answers to us.", lambda t: t.cost_usd.distilling),
        ("task_saved_usd", "What the student's answers saved.", lambda t: t.cost_usd.saved),
    )
    for name, meaning, value in by_task:
        family = GaugeMetricFamily(f"understudy_{name}", meaning, labels=_TASK)
        for task in status.tasks:
            number = value(task)
            if number is not None:
                family.add_metric((task.task,), float(number))
        metrics.append(family)
    metrics.append(_suspicion(status.tasks))
    return metrics


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"understudy_{name}", meaning, value=float(value))


def _suspicion(tasks: Iterable[TaskStatus]) -> Metric:
    family = GaugeMetricFamily(
        "understudy_task_suspicion",
        "How near a detector is to demoting the student: at 1 it does.",
        labels=("task", "of"),
    )
    for task in tasks:
        for of, suspicion in task.live.suspicion.items() if task.live else ():
            family.add_metric((task.task, of), suspicion.level)
    return family
