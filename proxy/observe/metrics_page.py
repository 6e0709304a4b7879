"""`GET /metrics`: the counts of all workers, as Prometheus reads them.

Prometheus asks one worker, whichever takes the connection. So each worker writes its counts to a
file once a second, and the worker that is asked adds those of the others. Each series has its
worker's number as a label, so that a restarted worker is a counter's reset for Prometheus.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from proxy.access.keys import Keys
from proxy.access.limits import Limits
from proxy.http.asgi import Receive, Scope, Send, header, respond
from proxy.observe.metrics import DURATION_S, FIRST_CHUNK_S, Metrics
from store.files.atomic import read_regular, write_atomically
from store.files.journal import JournalWriter
from store.jsontext import JsonMapping, JsonObject

if TYPE_CHECKING:
    from prometheus_client.core import Metric

PATH = "/metrics"
FOLDER = "metrics"  # below data_dir
_MAX_BYTES = 1 << 26  # of a worker's counts, which are some KB
_SHARED_EVERY_S = 1.0
_STALE_AFTER_S = 60.0  # a worker whose file is older has stopped

Snapshot = JsonMapping


class MetricsPage:
    """Serves the counts, and shares this worker's with the others."""

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
        """Raises ApiError 401: the names of tasks are for clients with a key."""
        self._keys.authenticate(scope["headers"], needs=None)
        accept = (header(scope["headers"], b"accept") or b"").decode("latin-1")
        # the first call imports prometheus_client
        kind, page = await asyncio.to_thread(_page, self._all(), accept)
        await respond(send, 200, [(b"content-type", kind.encode())], page)

    def tick(self) -> None:
        """Shares this worker's counts, if there are other workers."""
        now = self._clock()
        if self._workers > 1 and abs(now - self._shared_at) >= _SHARED_EVERY_S:
            self._shared_at = now
            shared = self._read(self._worker)
            if shared is not None and self._by_a_successor(shared, now):
                return  # this one is draining
            with suppress(OSError):  # a full disk, which the journal reports
                write_atomically(self._file(self._worker), orjson.dumps(self._own()))

    def _by_a_successor(self, shared: JsonObject, now: float) -> bool:
        """Whether a later process shares its counts under this worker's number now."""
        recent = abs(now - shared["at"]) < _STALE_AFTER_S
        return recent and bool(shared["began"] > self._began)

    def _file(self, worker: int) -> Path:
        return self._folder / f"worker-{worker}.json"

    def _own(self) -> JsonObject:
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
        snapshots: dict[int, Snapshot] = {self._worker: self._own()}
        for worker in range(self._workers):
            if worker == self._worker:
                continue
            other = self._read(worker)
            if other is not None and abs(self._clock() - other["at"]) < _STALE_AFTER_S:
                snapshots[worker] = other
        return snapshots

    def _read(self, worker: int) -> JsonObject | None:
        """The counts that a worker shared; None in its first second, or where they are none."""
        try:
            snapshot: JsonObject = orjson.loads(read_regular(self._file(worker), _MAX_BYTES))
        except (OSError, orjson.JSONDecodeError):
            return None
        counts = isinstance(snapshot, dict) and snapshot.keys() >= self._own().keys()
        times = counts and all(isinstance(snapshot[name], float) for name in ("at", "began"))
        return snapshot if times else None


class _Collector:
    """The collector that prometheus_client asks."""

    def __init__(self, workers: Mapping[int, Snapshot]) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        return families(self._workers)


def _page(workers: Mapping[int, Snapshot], accept: str) -> tuple[str, bytes]:
    """The content type and the text of the page."""
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

    try:
        encode, kind = choose_encoder(accept)
    except (TypeError, ValueError):  # an unknown version
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
    """Prometheus' buckets, which are cumulative."""
    total, buckets = 0, []
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
