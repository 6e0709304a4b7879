"""The status API over a real store, with a student in canary and a store that has a fault."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from distill.api import build_api
from distill.collect import collect
from distill.composition import build_services
from distill.monitor.detector import DetectorState
from distill.monitor.evidence import NO_COMPARISONS
from distill.monitor.state import AuditState, LiveStudent
from distill.pipeline.due import Due
from distill.publish import Publisher
from distill.run.progress import Board
from distill.status.reporter import Reporter
from distill.status.status import StoreHealth
from store.database.comparisons import ComparisonCounts
from store.database.database import Database
from store.database.store import Store
from store.settings.config import StoreSettings, parse_config
from store.settings.teachers import Price
from tests.helpers.samples import a_trace, write_segment

TOKEN = {"x-understudy-token": "of this run"}
ENTRY = {"model_name": "gpt-4o", "litellm_params": {"model": "openai/gpt-4o", "api_key": "k"}}
CONFIG = {"model_list": [ENTRY]}
PRICES = {"gpt-4o": Price(1e-6, 1e-6)}
DETECTOR = DetectorState(n=52, bad=3, tolerated=0.05, level=0.25, run_length=5000)
LIVE = {
    "triage": LiveStudent(
        student_id="run-1",
        step="canary",
        share=0.05,
        shares=[0.05, 0.25, 1.0],
        next_share=0.25,
        promoted_at=1.0,
        step_at=2.0,
        rows=12,
        groups=12,
        groups_agreed=11,
        groups_needed=30,
        reason="12 of 30 comparisons",
        waits_for="",
        comparisons={
            "shadow": ComparisonCounts(50, 40, 39),
            "audit": ComparisonCounts(12, 12, 11),
            "feedback": NO_COMPARISONS,
        },
        shed=2,
        audits=AuditState(rate=0.05, owed=1, dropped=0, dropped_for={}),
        suspicion={"disagreement": DETECTOR, "faults": DETECTOR, "unsure": DETECTOR},
    )
}
DUE = {"triage": Due(False, "collecting: 3 of 200 new teacher traces")}


async def nothing_to_follow() -> None:
    """Here is no control plane whose routes could change."""


@contextmanager
def api_scene(tmp_path: Path) -> Iterator[tuple[TestClient, Database, Board, Publisher]]:
    """A client of the API, and what stands behind it. The task is `triage`."""
    with Database(tmp_path / "understudy.duckdb", StoreSettings()) as db:
        student: dict[str, Any] = {"served_by": "student", "route": "student"}
        write_segment(
            tmp_path / "journal",
            *(a_trace() for _ in range(3)),
            *(a_trace(**student, reason="certified", duration_ms=8.0) for _ in range(6)),
        )
        collect(db, tmp_path / "journal", PRICES)
        config = parse_config({**CONFIG, "data_dir": str(tmp_path)})
        board = Board(lambda: 100.0)
        publisher = Publisher(tmp_path / "routes.json", lambda: 1.0)
        reporter = Reporter(
            Store(db),
            due=DUE.get,
            board=board,
            route=publisher.route,
            prices=PRICES,
            settings=config.task,
            live=LIVE.get,
        )
        services = build_services(
            config,
            Store(db),
            clock=time.time,
            collect=nothing_to_follow,
            follow=nothing_to_follow,
        )
        health = StoreHealth(ok=False, error="the disk is full", collected=9, damaged=1)
        api = build_api(
            token="of this run",
            status=lambda: reporter.status(health, {"triage": "starting"}),
            task_status=reporter.task,
            commands=services.commands,
            forgetter=services.forgetter,
            clock=time.time,
            version="1.2.3",
        )
        with TestClient(api) as client:
            yield client, db, board, publisher
