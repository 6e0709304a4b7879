"""What lives as long as a worker: its connections, its journal, its routes, its metrics."""

from __future__ import annotations

import asyncio
import logging

from proxy.observe.metrics_page import MetricsPage
from proxy.observe.telemetry import Spans
from proxy.surfaces.responses.stored import StoredResponses
from proxy.upstream.client import Upstream
from store.files.journal import JournalWriter
from store.files.routes import RoutesFile

UPKEEP_S = 0.25  # how often the journal is sealed and the routes are read again

log = logging.getLogger(__name__)


class Upkeep:
    """Opens and closes these, and does in between what has to be done regularly."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        journal: JournalWriter,
        routes: RoutesFile,
        metrics: MetricsPage,
        stored_responses: StoredResponses,
        spans: Spans | None,
    ) -> None:
        self._upstream = upstream
        self._journal = journal
        self._routes = routes
        self._metrics = metrics
        self._stored_responses = stored_responses
        self._spans = spans
        self._running: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._last_faults: tuple[str | None, str | None] = (None, None)

    @property
    def routes_digest(self) -> int:
        """Which version of the routes file was read last."""
        return self._routes.digest

    async def start(self) -> None:
        await self._upstream.open()
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
        await self._upstream.close()
        self._journal.close()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_S)
            self._tick()

    def _tick(self) -> None:
        """Does what has to be done regularly; a fault in one part stops no other."""
        for part in (self._journal.tick, self._read_routes, self._metrics.tick, self._sweep):
            try:
                part()
            except Exception as error:
                log.error("upkeep_failed", exc_info=error)
        self._show_faults()

    def _read_routes(self) -> None:
        if self._routes.refresh():
            log.info("routes_changed tasks=%d", len(self._routes.routes))

    def _sweep(self) -> None:
        sweeping = self._sweeping
        if (sweeping is None or sweeping.done()) and self._stored_responses.sweep_is_due():
            self._sweeping = asyncio.create_task(asyncio.to_thread(self._stored_responses.sweep))

    def _show_faults(self) -> None:
        faults = (self._journal.health.error, self._routes.error)
        if faults != self._last_faults:
            self._last_faults = faults
            log.log(
                logging.ERROR if any(faults) else logging.INFO,
                "upkeep journal=%r routes=%r",
                *faults,
            )
