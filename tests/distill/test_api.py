"""The status API: for the proxy alone, described, and true to the store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from distill.publish import Publisher
from distill.run.progress import Board
from distill.status.page_policy import policy_of
from store.database.actions import append_action
from store.database.database import Database
from store.database.promotions import append_promotion
from store.database.runs import append_run_event
from store.ids import new_id
from store.records import (
    PromptTemplate,
    RunEvent,
    RunState,
)
from tests.helpers.api_scene import TOKEN, api_scene
from tests.helpers.samples import a_certificate, a_promotion, a_route, an_action


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[TestClient, Database, Board, Publisher]]:
    with api_scene(tmp_path) as found:
        yield found


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
        append_run_event(db, step)
    return run_id


@pytest.mark.parametrize("path", ["/distill", "/distill/status", "/distill/docs"])
@pytest.mark.parametrize("token", [None, "", "of this ru", "of another run"])
@pytest.mark.slow
def test_only_the_proxy_is_answered(scene, path: str, token: str | None) -> None:
    headers = {} if token is None else {"x-understudy-token": token}
    assert scene[0].get(path, headers=headers).status_code == 403


@pytest.mark.slow
def test_a_new_task_has_traces_and_no_student(scene) -> None:
    client, _, _, _ = scene
    found = client.get("/distill/status/triage", headers=TOKEN).json()
    assert found["traces"] == 9
    assert found["new_traces"] == 3
    assert found["due"] == "collecting: 3 of 200 new teacher traces"
    assert found["route"] == {"task": "triage", "target": "teacher", "reason": "no_student"}
    assert found["stage"] is found["last_run"] is found["certificate"] is None
    assert found["served"]["student"]["requests"] == 6
    assert found["served"]["student"]["p50_ms"] == 8.0
    assert found["tokens"]["traffic"] == {
        "calls": 3,
        "input": 300,
        "output": 30,
        "estimated": 0,
    }
    assert found["cost_usd"]["traffic"] == pytest.approx(330e-6)
    assert found["cost_usd"]["saved"] == pytest.approx(6 * 110e-6)


@pytest.mark.slow
def test_an_unknown_task_is_a_404(scene) -> None:
    assert scene[0].get("/distill/status/never", headers=TOKEN).status_code == 404


@pytest.mark.slow
def test_the_status_shows_the_store_and_the_students(scene) -> None:
    found = scene[0].get("/distill/status", headers=TOKEN).json()
    assert found["store"] == {
        "ok": False,
        "error": "the disk is full",
        "collected": 9,
        "damaged": 1,
        "set_aside": 0,
        "skipped": [],
        "not_kept": None,
        "forgotten": 0,
        "forgetting": 0,
    }
    assert found["students"] == {"triage": "starting"}
    assert [t["task"] for t in found["tasks"]] == ["triage"]


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_rejected_task_shows_what_it_failed_at(scene) -> None:
    client, db, _, _ = scene
    ended_run(db, RunState.REJECTED, certificate={"score": 0.5, "passed": False})
    found = client.get("/distill/status/triage", headers=TOKEN).json()
    assert found["certificate"] == {"score": 0.5, "passed": False}
    assert found["route"]["target"] == "teacher"


@pytest.mark.slow
def test_the_pages_load_nothing_from_other_hosts(scene) -> None:
    client, _, _, _ = scene
    for path in ("/distill", "/distill/docs"):
        page = client.get(path, headers=TOKEN)
        assert page.headers["content-type"].startswith("text/html")
        assert "https://" not in page.text
        # no inline script, style or handler runs but those that the policy names by their hash
        policy = page.headers["content-security-policy"]
        assert policy == policy_of(page.text) and "unsafe" not in policy
        assert policy.count("'sha256-") == len(re.findall("<(?:script|style)>", page.text)) > 0
        markup = re.sub(r"<(script|style)>.*?</\1>", "", page.text, flags=re.DOTALL)
        assert not re.search(r"<[^>]*\s(?:style|on[a-z]+)\s*=", markup)
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert client.get(f"/distill/assets/{asset}").status_code == 200


@pytest.mark.slow
def test_the_openapi_document_has_every_path(scene) -> None:
    described = scene[0].get("/distill/openapi.json").json()
    assert described["openapi"].startswith("3.0.")  # what the packaged Swagger UI can show
    assert set(described["paths"]) == {
        "/distill/status",
        "/distill/status/{task}",
        "/distill/metrics",
        "/distill/tasks/{task}/{command}",
        "/distill/forget",
    }
    fields = described["components"]["schemas"]
    for name in (
        "TaskStatus",
        "LiveStudent",
        "DetectorState",
        "TeacherCeiling",
        "CommandOrder",
        "CommandResult",
    ):
        assert fields[name]["properties"], name


@pytest.mark.slow
def test_a_forced_student_is_shown_as_forced(scene) -> None:
    client, db, _, _ = scene
    values = {"passed": False, "lower_bound": 0.9125, "attempt": 2, "alpha": 0.05 / 6}
    promotion = a_promotion(
        forced=True,
        actor="support",
        reason="the test set is old",
        certificate=a_certificate(**values),
    )
    append_promotion(db, promotion)
    found = client.get("/distill/status/triage", headers=TOKEN).json()
    assert found["forced"] == {
        "at": promotion.at,
        "actor": "support",
        "reason": "the test set is old",
    }
    assert found["demotion"] is None
    assert found["promise"] == (
        "The student is not proven: only 91.2 % agreement with the teacher is certain, "
        "95 % is wanted."
    )
    assert found["attempts"]["attempt"] == 2
    assert found["attempts"]["alpha_spent"] == pytest.approx(0.05 * 2 / 3)
    [turn] = found["history"]
    assert (turn["state"], turn["forced"], turn["share"]) == ("live", True, 1.0)


@pytest.mark.slow
def test_a_demotion_shows_its_time_and_reason(scene) -> None:
    client, db, _, _ = scene
    append_promotion(db, a_promotion(at=10.0))
    down: dict[str, Any] = {"target": "teacher", "state": "demoted", "route": None, "run_id": None}
    append_promotion(
        db, a_promotion(**down, at=20.0, actor="audit", reason="9 of 40", suspect_since=15.0)
    )
    append_action(db, an_action(command="retrain", at=30.0))
    found = client.get("/distill/status/triage", headers=TOKEN).json()
    assert found["demotion"] == {
        "at": 20.0,
        "actor": "audit",
        "reason": "9 of 40",
        "run_id": None,
        "suspect_since": 15.0,
    }
    assert [t["state"] for t in found["history"]] == ["retrain", "demoted", "live"]


@pytest.mark.slow
def test_the_rollout_and_the_evidence_against_a_student_are_shown(scene) -> None:
    client, db, _, _ = scene
    template = PromptTemplate(
        template_id="a" * 16, shape="b" * 16, literals=["Today is ", "."], holes=[20], distinct=7
    )
    append_promotion(db, a_promotion(route=a_route(templates=[template])))
    found = client.get("/distill/status/triage", headers=TOKEN).json()
    live = found["live"]
    assert (live["step"], live["share"], live["next_share"]) == ("canary", 0.05, 0.25)
    assert (live["rows"], live["groups"], live["groups_agreed"]) == (12, 12, 11)
    assert live["groups_needed"] == 30
    assert live["comparisons"]["shadow"] == {"n": 50, "servable": 40, "agreed": 39}
    assert live["audits"]["rate"] == 0.05
    assert live["suspicion"]["disagreement"]["level"] == 0.25
    assert found["varying_prompts"] == [
        {"template_id": "a" * 16, "skeleton": "Today is \N{HORIZONTAL ELLIPSIS}.", "distinct": 7}
    ]
