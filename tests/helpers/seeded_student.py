"""A store in which a student is live already: its run, its adapter, its certificate, its route."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from store.chat.shape import fingerprint
from store.database.database import Database
from store.database.promotions import append_promotion
from store.database.runs import append_run_event
from store.ids import new_id
from store.records import RunState
from store.settings.config import Config
from tests.helpers.samples import a_certificate, a_promotion, a_route, a_run_event
from tests.helpers.student_samples import BASE, rows

MODEL = "teacher"


def seed_student(config: Config, task: str, adapter: Path, *, gone_by_s: float = 60.0) -> str:
    """Makes the sample task's student live for a task since a minute. Returns its run's id.

    To be called while nothing else has the database open.
    """
    run_id, at = new_id(), time.time() - gone_by_s
    shutil.copytree(adapter, config.runs_dir / run_id / "adapter")
    prompt = rows(1, seed=1)[0].messages
    certificate = replace(
        a_certificate(task=task, run_id=run_id, n=300, agreed=300, lower_bound=0.98, at=at),
        cutoff=None,
        threshold=config.task(task).gate.threshold,
        fingerprints=[fingerprint({"model": MODEL, "messages": prompt})],
    )
    route = a_route(
        task=task,
        step="live",
        share=1.0,
        student_id=run_id,
        fingerprints=certificate.fingerprints,
        cutoff=None,
        output="json",
        scorer="json",
        agree_at=1.0,
        max_tokens=64,
        certificate_id=certificate.certificate_id,
        at=at,
    )
    trained = a_run_event(
        run_id,
        task=task,
        seq=0,
        state=RunState.TRAINED,
        at=at,
        detail={"adapter": "adapter", "base": BASE},
    )
    with Database(config.database_file, config.store) as db:
        append_run_event(db, trained)
        append_run_event(
            db, replace(trained, seq=1, state=RunState.PROMOTED, detail={"used_until": at})
        )
        append_promotion(
            db,
            a_promotion(
                task=task,
                run_id=run_id,
                certificate=certificate,
                route=route,
                state="live",
                at=at,
            ),
        )
    return run_id
