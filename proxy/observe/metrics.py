"""Counts of the data plane's requests, for Prometheus.

Plain numbers, since every request is counted: half a microsecond each. The metrics are made from
them when Prometheus asks (proxy.observe.metrics_page). The bounds of the histograms are those that
OpenTelemetry's conventions for generative AI advise.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from store.jsontext import JsonObject
from store.records import Trace

DURATION_S = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
    *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
FIRST_CHUNK_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
MAX_TASKS = 1000  # a client that invents tags must not fill the memory, here and at Prometheus'
OTHER_TASKS = "_other"  # not a valid tag

# task ("" without one), api, route; then reason and outcome for the count of requests
Kind = tuple[str, str, str]
Ending = tuple[str, str, str, str, str]


@dataclass(slots=True)
class Histogram:
    """`counts[n]`: observed values up to bound n; the last one: those above all bounds."""

    counts: list[int]
    sum: float = 0.0

    def observe(self, value: float, bounds: tuple[float, ...]) -> None:
        """Counts one value."""
        self.counts[bisect_left(bounds, value)] += 1
        self.sum += value


def _histogram(bounds: tuple[float, ...]) -> Histogram:
    return Histogram([0] * (len(bounds) + 1))


@dataclass(slots=True)
class Usage:
    """Time and tokens of the requests of one kind."""

    duration: Histogram = field(default_factory=lambda: _histogram(DURATION_S))
    first_chunk: Histogram = field(default_factory=lambda: _histogram(FIRST_CHUNK_S))
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


class Metrics:
    """The counts of one worker since its start."""

    def __init__(self) -> None:
        self.requests: dict[Ending, int] = {}
        self.usage: dict[Kind, Usage] = {}
        self.refusals: dict[int, int] = {}  # by status: requests without a trace
        self._tasks: set[str] = set()

    def count(self, trace: Trace) -> None:
        """Counts a trace."""
        task = self._task(trace.task)
        kind = (task, trace.api, trace.route)
        ending = (*kind, trace.reason, trace.outcome)
        self.requests[ending] = self.requests.get(ending, 0) + 1
        usage = self.usage.get(kind)
        if usage is None:
            usage = self.usage[kind] = Usage()
        usage.duration.observe(trace.duration_ms / 1000, DURATION_S)
        if trace.time_to_first_chunk_ms is not None:
            usage.first_chunk.observe(trace.time_to_first_chunk_ms / 1000, FIRST_CHUNK_S)
        usage.input_tokens += trace.input_tokens or 0
        usage.output_tokens += trace.output_tokens or 0
        usage.cached_tokens += trace.cached_tokens or 0

    def refused(self, status: int) -> None:
        """Counts a request that was refused before it was understood or admitted."""
        self.refusals[status] = self.refusals.get(status, 0) + 1

    def _task(self, task: str | None) -> str:
        if task is None or task in self._tasks:
            return task or ""
        if len(self._tasks) >= MAX_TASKS:
            return OTHER_TASKS
        self._tasks.add(task)
        return task

    def snapshot(self) -> JsonObject:
        """The counts as plain values, for another worker to show."""
        return {
            "requests": [[*ending, count] for ending, count in self.requests.items()],
            "used": [
                [
                    *kind,
                    usage.duration.counts,
                    usage.duration.sum,
                    usage.first_chunk.counts,
                    usage.first_chunk.sum,
                    {
                        "input": usage.input_tokens,
                        "output": usage.output_tokens,
                        "cached": usage.cached_tokens,
                    },
                ]
                for kind, usage in self.usage.items()
            ],
            "refusals": list(self.refusals.items()),
        }
