"""The hash of a frequent input leaves the routes with the last request that has it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from distill.collect import collect
from distill.pipeline.promotion import save_route, saved_route
from store.database.database import Database
from store.database.forgetting import Subject
from store.database.promotions import append_promotion, latest_promotions
from store.ids import new_id
from store.settings.config import parse_config
from tests.helpers.forget_scene import a_forgetter, trace_of
from tests.helpers.samples import a_promotion, a_route, write_segment

ENTRY = {"model_name": "gpt-4o", "litellm_params": {"model": "openai/gpt-4o", "api_key": "k"}}


@pytest.mark.slow
async def test_a_forgotten_users_own_input_leaves_the_routes(tmp_path: Path) -> None:
    config = parse_config({"model_list": [ENTRY], "data_dir": str(tmp_path)})
    at = time.time() - 100
    own = trace_of("only ann", 1, user="ann", answer="x", at=at)
    shared = [trace_of("all", 2, user=user, answer="x", at=at) for user in ("ann", "bob")]
    assert shared[0].input_hash == shared[1].input_hash
    student = new_id()
    route = a_route(
        task="triage", student_id=student, teacher_inputs=[own.input_hash, shared[0].input_hash]
    )
    folder = config.runs_dir / student
    folder.mkdir(parents=True)
    save_route(folder, route)
    with Database(config.database_file, config.store) as db:
        write_segment(config.journal_dir, own, *shared)
        collect(db, config.journal_dir, {})
        append_promotion(db, a_promotion(task="triage", run_id=student, route=route))
        subjects = [Subject(kind="user", subject="ann", until=time.time() + 60)]
        await a_forgetter(db, config).forget(subjects, actor="ann")
        published = latest_promotions(db)["triage"].route
    kept = saved_route(folder)
    assert published is not None and kept is not None
    assert published.teacher_inputs == kept.teacher_inputs == [shared[0].input_hash]
