"""The status API: for the proxy alone, described, and true to the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from samples import a_route, a_trace, write_segment

from distill.api import build_api
from distill.collect import collect
from distill.due import Due
from distill.progress import Board
from distill.publish import Publisher
from distill.reporter import Reporter
from distill.status import StoreHealth
from store import records
from store.config import StoreSettings
from store.database import Database
from store.models import RunEvent, RunState, new_id
from store.teachers import Price

TOKEN = {"x-understudy-token": "of this run"}
PRICES = {"gpt-4o": Price(1e-6, 1e-6)}


class NoRunner:
    """What the reporter asks of the runner."""

    def __init__(self) -> None:
        self.verdicts = {"triage": Due(False, "collecting: 3 of 200 new teacher traces")}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[TestClient, Database, Board, Publisher]]:
    with Database(tmp_path / "understudy.duckdb", StoreSettings()) as db:
        student: dict[str, Any] = {"served_by": "student", "route": "student"}
        write_segment(
            tmp_path / "journal",
            *(a_trace() for _ in range(3)),
            *(a_trace(**student, reason="certified", duration_ms=8.0) for _ in range(6)),
        )
        collect(db, tmp_path / "journal", PRICES)
        board = Board(lambda: 100.0)
        publisher = Publisher(tmp_path / "routes.json", lambda: 1.0)
        reporter = Reporter(
            db,
            runner=NoRunner(),  # type: ignore[arg-type]
            board=board,
            publisher=publisher,
            prices=PRICES,
        )
        health = StoreHealth(ok=False, error="the disk is full", collected=9, damaged=1)
        api = build_api(
            token="of this run",
            status=lambda: reporter.status(health, {"triage": "starting"}),
            task_status=reporter.task,
            version="1.2.3",
        )
        with TestClient(api) as client:
            yield client, db, board, publisher


def ended_run(db: Database, state: RunState, **detail: Any) -> str:
    run_id = new_id()
    steps = [
        RunEvent(
            run_id=run_id, seq=0, task="triage", state=RunState.COLLECTED, at=10.0, seconds=2.0
        ),
        RunEvent(
            run_id=run_id,
            seq=1,
            task="triage",
            state=RunState.TRAINED,
            at=40.0,
            seconds=30.0,
            detail={"chosen": "real"},
        ),
        RunEvent(
            run_id=run_id,
            seq=2,
            task="triage",
            state=state,
            at=50.0,
            reason="so it was",
            detail=detail,
        ),
    ]
    for step in steps:
        records.append_run_event(db, step)
    return run_id


@pytest.mark.parametrize("path", ["/distill", "/distill/status", "/distill/docs"])
@pytest.mark.parametrize("token", [None, "", "of this ru", "of another run"])
def test_only_the_proxy_is_answered(scene, path: str, token: str | None) -> None:
    headers = {} if token is None else {"x-understudy-token": token}
    assert scene[0].get(path, headers=headers).status_code == 403


def test_a_new_task(scene) -> None:
    client, _, _, _ = scene
    found = client.get("/distill/status/triage", headers=TOKEN).json()
    assert found["traces"] == 9
    assert found["new_traces"] == 3
    assert found["due"] == "collecting: 3 of 200 new teacher traces"
    assert found["route"] == {"task": "triage", "target": "teacher", "reason": "no_student"}
    assert found["stage"] is found["last_run"] is found["certificate"] is None
    assert found["served"]["student"]["requests"] == 6
    assert found["served"]["student"]["p50_ms"] == 8.0
    assert found["tokens"]["traffic"] == {"calls": 3, "input": 300, "output": 30}
    assert found["cost_usd"]["traffic"] == pytest.approx(330e-6)
    assert found["cost_usd"]["saved"] == pytest.approx(6 * 110e-6)


def test_a_task_that_nobody_named_is_a_404(scene) -> None:
    assert scene[0].get("/distill/status/never", headers=TOKEN).status_code == 404


def test_the_whole_says_how_the_store_and_the_students_are(scene) -> None:
    found = scene[0].get("/distill/status", headers=TOKEN).json()
    assert found["store"] == {
        "ok": False,
        "error": "the disk is full",
        "collected": 9,
        "damaged": 1,
    }
    assert found["students"] == {"triage": "starting"}
    assert [t["task"] for t in found["tasks"]] == ["triage"]


def test_a_run_under_way_and_one_that_ended(scene) -> None:
    client, db, board, publisher = scene
    certificate = json.loads(json.dumps({"score": 0.97, "passed": True}))
    run_id = ended_run(db, RunState.PROMOTED, certificate=certificate)
    route = a_route()
    publisher.publish({"triage": route})
    board.start("triage", "r2", 90.0)("train", 5, 10, "loss 0.1")
    found = client.get("/distill/status/triage", headers=TOKEN).json()
    assert found["stage"]["stage"] == "train"
    assert (found["stage"]["done"], found["stage"]["total"]) == (5, 10)
    last = found["last_run"]
    assert (last["run_id"], last["state"], last["reason"]) == (run_id, "promoted", "so it was")
    assert (last["started_at"], last["ended_at"]) == (8.0, 50.0)
    assert last["stages"] == {"collected": 2.0, "trained": 30.0}
    assert last["detail"]["trained"] == {"chosen": "real"}
    assert found["certificate"] == certificate
    assert found["route"]["target"] == route.target
    assert found["route"]["base_url"] == route.base_url


def test_a_rejected_task_shows_what_it_failed_at(scene) -> None:
    client, db, _, _ = scene
    ended_run(db, RunState.REJECTED, certificate={"score": 0.5, "passed": False})
    found = client.get("/distill/status/triage", headers=TOKEN).json()
    assert found["certificate"] == {"score": 0.5, "passed": False}
    assert found["route"]["target"] == "teacher"


def test_the_pages_need_nothing_from_elsewhere(scene) -> None:
    client, _, _, _ = scene
    for path in ("/distill", "/distill/docs"):
        page = client.get(path, headers=TOKEN)
        assert page.headers["content-type"].startswith("text/html")
        assert "https://" not in page.text
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert client.get(f"/distill/assets/{asset}").status_code == 200


def test_the_description_names_every_path(scene) -> None:
    described = scene[0].get("/distill/openapi.json").json()
    assert described["openapi"].startswith("3.0.")  # what the packaged Swagger UI can show
    assert set(described["paths"]) == {"/distill/status", "/distill/status/{task}"}
