"""Records a finished trace: in the journal, in the metrics, and with every watcher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from proxy.http.asgi import Headers
from proxy.observe.metrics import Metrics
from store.files.journal import JournalWriter
from store.records import Trace

Watcher = Callable[[Trace, Headers], None]  # the trace, and the request's headers

log = logging.getLogger(__name__)


class Recorder:
    """Records the traces of one process."""

    def __init__(
        self, journal: JournalWriter, metrics: Metrics, watchers: Sequence[Watcher] = ()
    ) -> None:
        self._journal = journal
        self._metrics = metrics
        self._watchers = tuple(watchers)

    def record(self, trace: Trace, headers: Headers) -> None:
        """Journals the trace before it returns. A watcher's failure is only logged."""
        self._journal.append(trace)
        self._metrics.count(trace)
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "answered trace=%s api=%s task=%s route=%s reason=%s outcome=%s status=%d ms=%.1f",
                *(trace.trace_id, trace.api, trace.task, trace.route, trace.reason),
                *(trace.outcome, trace.status_code, trace.duration_ms),
            )
        for watcher in self._watchers:
            try:
                watcher(trace, headers)
            except Exception as error:
                log.error("watcher_failed trace=%s", trace.trace_id, exc_info=error)

    def refused(self, status: int) -> None:
        """Counts a request that was refused without a trace."""
        self._metrics.refused(status)
