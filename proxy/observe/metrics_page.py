"""`GET /metrics`: the counts of all workers, as Prometheus reads them.

Prometheus asks one worker, whichever takes the connection. So each worker leaves its counts in a
file once a second, and the one that is asked adds the others'. Each series has the number of its
worker as a label, so that a worker that starts again from 0 looks as Prometheus expects it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from proxy.access.keys import Keys
from proxy.access.limits import Limits
from proxy.http.asgi import Receive, Scope, Send, header, respond
from proxy.observe.metrics import DURATION_S, FIRST_CHUNK_S, Metrics
from store.files.atomic import write_atomically
from store.files.journal import JournalWriter

if TYPE_CHECKING:
    from prometheus_client.core import Metric

PATH = "/metrics"
FOLDER = "metrics"  # below data_dir
_SHARED_EVERY_S = 1.0
_STALE_AFTER_S = 60.0  # a worker that has not been heard of for so long is none any more

Snapshot = Mapping[str, Any]


class MetricsPage:
    """Shows the counts, and shares this worker's with the others."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        keys: Keys,
        limits: Limits,
        journal: JournalWriter,
        folder: Path,
        worker: int,
        workers: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder`: shared by all workers. `worker`: which one this is, of how many."""
        self._metrics = metrics
        self._keys = keys
        self._limits = limits
        self._journal = journal
        self._folder = folder
        self._worker = worker
        self._workers = workers
        self._clock = clock
        self._began = clock()
        self._shared_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError 401: the names of tasks are nobody else's business."""
        self._keys.authenticate(scope["headers"])
        accept = (header(scope["headers"], b"accept") or b"").decode("latin-1")
        # the first time it imports prometheus_client
        kind, page = await asyncio.to_thread(_page, self._all(), accept)
        await respond(send, 200, [(b"content-type", kind.encode())], page)

    def tick(self) -> None:
        """Leaves this worker's counts for the others, where there are some."""
        now = self._clock()
        if self._workers > 1 and now - self._shared_at >= _SHARED_EVERY_S:
            self._shared_at = now
            there = self._read(self._worker)
            if there is not None and there["began"] > self._began:
                return  # this worker's successor has taken over; this one only drains
            with suppress(OSError):  # a full disk: the journal says so; these are a little old
                write_atomically(self._file(self._worker), orjson.dumps(self._own()))

    def _file(self, worker: int) -> Path:
        return self._folder / f"worker-{worker}.json"

    def _own(self) -> dict[str, Any]:
        journal = self._journal.health
        return {
            "at": self._clock(),
            "began": self._began,
            "in_flight": self._limits.in_flight,
            "backlog": journal.backlog,
            "lost": journal.lost,
            **self._metrics.snapshot(),
        }

    def _all(self) -> dict[int, Snapshot]:
        found: dict[int, Snapshot] = {self._worker: self._own()}
        for worker in range(self._workers):
            if worker == self._worker:
                continue
            other = self._read(worker)
            if other is not None and self._clock() - other["at"] < _STALE_AFTER_S:
                found[worker] = other
        return found

    def _read(self, worker: int) -> dict[str, Any] | None:
        """What a worker has left; None when it has not been up for a second yet."""
        try:
            found: dict[str, Any] = orjson.loads(self._file(worker).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None
        return found


class _Collector:
    """What prometheus_client asks for metrics."""

    def __init__(self, workers: Mapping[int, Snapshot]) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        return families(self._workers)


def _page(workers: Mapping[int, Snapshot], accept: str) -> tuple[str, bytes]:
    """The content type and the text that Prometheus asks for."""
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

    try:
        encode, kind = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none
        encode, kind = choose_encoder("")
    return kind, encode(_Collector(workers))


def families(workers: Mapping[int, Snapshot]) -> Iterable[Metric]:
    """The metrics of these workers, by their number."""
    from prometheus_client.core import (  # noqa: PLC0415
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    kind = ("task", "api", "route")
    requests = CounterMetricFamily(
        "understudy_requests",
        "Requests with a trace, by who answered and why.",
        labels=(*kind, "reason", "outcome", "worker"),
    )
    duration = HistogramMetricFamily(
        "understudy_request_duration_seconds",
        "From a request's arrival to the end of its answer.",
        labels=(*kind, "worker"),
    )
    first = HistogramMetricFamily(
        "understudy_time_to_first_chunk_seconds",
        "From a request's arrival to the first chunk of a streamed answer.",
        labels=(*kind, "worker"),
    )
    tokens = CounterMetricFamily(
        "understudy_tokens",
        "Tokens as the answers state them; cached ones are input too.",
        labels=(*kind, "type", "worker"),
    )
    refused = CounterMetricFamily(
        "understudy_refused",
        "Requests without a trace: not understood, no key, over a limit.",
        labels=("status", "worker"),
    )
    in_flight = GaugeMetricFamily(
        "understudy_requests_in_flight", "Requests under way.", labels=("worker",)
    )
    backlog = GaugeMetricFamily(
        "understudy_journal_backlog_lines",
        "Traces in memory that the disk has refused so far.",
        labels=("worker",),
    )
    lost = CounterMetricFamily(
        "understudy_journal_lost_lines",
        "Traces that were dropped from a full backlog.",
        labels=("worker",),
    )
    for number, seen in workers.items():
        worker = str(number)
        for *ending, count in seen["requests"]:
            requests.add_metric((*ending, worker), count)
        for task, api, route, counts, total, first_counts, first_total, used in seen["used"]:
            labels = (task, api, route, worker)
            duration.add_metric(labels, _buckets(DURATION_S, counts), total)
            if any(first_counts):
                first.add_metric(labels, _buckets(FIRST_CHUNK_S, first_counts), first_total)
            for name, value in used.items():
                tokens.add_metric((task, api, route, name, worker), value)
        for status, count in seen["refusals"]:
            refused.add_metric((str(status), worker), count)
        in_flight.add_metric((worker,), seen["in_flight"])
        backlog.add_metric((worker,), seen["backlog"])
        lost.add_metric((worker,), seen["lost"])
    return (requests, duration, first, tokens, refused, in_flight, backlog, lost)


def _buckets(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    """Prometheus' buckets, in which each holds all below it too."""
    total, found = 0, []
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return found
