"""Two tasks with a student each, promoted before the server starts."""

from __future__ import annotations

import time
from dataclasses import replace

from store.chat.shape import fingerprint
from store.database.database import Database
from store.database.promotions import append_promotion
from store.database.runs import append_run_event
from store.ids import new_id
from store.records import RunState
from store.settings.config import Config
from tests.campaign import wire
from tests.helpers.samples import a_certificate, a_promotion, a_route, a_run_event

TAUGHT = ("alpha", "beta")
CUTOFF = -1.0  # between the log-probabilities of the stand-in's sure and unsure answers


def seed_students(config: Config) -> None:
    """Makes a student live for each task. To be called while nobody has the database open."""
    with Database(config.database_file, config.store) as db:
        for task in TAUGHT:
            _seed_student(db, config, task)


def _seed_student(db: Database, config: Config, task: str) -> None:
    run_id, at = new_id(), time.time() - 60
    adapter = config.runs_dir / run_id / "adapter"
    adapter.mkdir(parents=True)
    certificate = replace(
        a_certificate(task=task, run_id=run_id, n=300, agreed=300, lower_bound=0.98, at=at),
        cutoff=CUTOFF,
        fingerprints=[fingerprint({"model": wire.MODEL, "messages": wire.messages("000000")})],
    )
    route = a_route(
        task=task,
        step="live",
        share=1.0,
        student_id=run_id,
        fingerprints=certificate.fingerprints,
        cutoff=CUTOFF,
        output="text",
        scorer="exact",
        agree_at=1.0,
        max_tokens=64,
        timeout_s=config.task(task).student.request_timeout_s,
        certificate_id=certificate.certificate_id,
        at=at,
    )
    base = str(adapter.parent)
    trained = a_run_event(
        run_id,
        task=task,
        seq=0,
        state=RunState.TRAINED,
        at=at,
        detail={"adapter": "adapter", "base": base},
    )
    append_run_event(db, trained)
    append_run_event(
        db, replace(trained, seq=1, state=RunState.PROMOTED, detail={"used_until": at})
    )
    append_promotion(
        db,
        a_promotion(
            task=task, run_id=run_id, certificate=certificate, route=route, state="live", at=at
        ),
    )
