"""What a worker does regularly goes on whatever a part of it meets."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from proxy.surfaces.responses.stored import StoredResponses
from proxy.upkeep import UPKEEP_S, Upkeep
from proxy.upstream.client import Upstream
from store.files.journal import SEALED, JournalWriter
from store.files.routes import RoutesFile, publish_routes
from store.settings.config import JournalSettings
from tests.helpers.samples import a_route, a_trace


class Broken:
    """Metrics that cannot be shared, for a reason that nobody has thought of."""

    ticks = 0

    def tick(self) -> None:
        self.ticks += 1
        raise KeyError("began")


@pytest.mark.slow
async def test_a_fault_of_the_metrics_neither_holds_the_journal_nor_the_routes_back(
    tmp_path: Path,
) -> None:
    metrics: Any = Broken()
    journal = JournalWriter(tmp_path / "journal", JournalSettings(segment_seconds=0.01))
    routes = RoutesFile(tmp_path / "routes.json")
    upkeep = Upkeep(
        upstream=Upstream(connect_timeout_s=1, read_timeout_s=1),
        journal=journal,
        routes=routes,
        metrics=metrics,
        stored_responses=StoredResponses(tmp_path / "responses", 1),
        spans=None,
    )

    def done() -> bool:
        return bool(routes.routes) and any((tmp_path / "journal").glob(f"*{SEALED}"))

    await upkeep.start()
    async with asyncio.timeout(100 * UPKEEP_S):
        while metrics.ticks < 1:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(UPKEEP_S)
        journal.append(a_trace())
        publish_routes(tmp_path / "routes.json", {"triage": a_route()}, at=time.time())
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(UPKEEP_S)
    await upkeep.stop()
    assert metrics.ticks > 1
