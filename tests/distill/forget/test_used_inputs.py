"""What a run learned from stays known: until it is forgotten, also when its traces have expired."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from store.database import forgetting
from store.database.database import Database
from store.database.forgetting import Subject, digest_of
from store.database.runs import UsedInputs, used_inputs
from store.settings.config import Config, parse_config
from tests.helpers.forget_scene import TASK, USER, FilledFolder, a_forgetter, fill_folder

ENTRY = {"model_name": "gpt-4o", "litellm_params": {"model": "openai/gpt-4o", "api_key": "k"}}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config({"model_list": [ENTRY], "data_dir": str(tmp_path)})


@pytest.fixture
def filled(config: Config) -> FilledFolder:
    return fill_folder(config)


def a_user() -> list[Subject]:
    return [Subject(kind="user", subject=USER, until=time.time() + 60)]


def digests(used: UsedInputs, hashes: list[str]) -> set[str]:
    return {digest_of(used.salt, "input", one) for one in hashes}


@pytest.mark.slow
def test_learned_and_judged_rows_are_told_apart(config: Config, filled: FilledFolder) -> None:
    """Splits in the order of the rows: train, train, calibration, held-out, and so on."""
    traces = [*filled.theirs, *filled.others]
    heldout = [t.input_hash for n, t in enumerate(traces) if n % 4 == 3]
    with Database(config.database_file, config.store) as db:
        used = used_inputs(db, TASK, filled.run_id)
        assert used.judged >= set(heldout)
        assert used.judged >= {t.trace_id for n, t in enumerate(traces) if n % 4 == 3}
        learned = [t.input_hash for n, t in enumerate(traces) if n % 4 != 3]
        assert used.learned >= set(learned)
        # the other run has the others' traces alone, in other splits
        assert not used.learned & {t.input_hash for t in filled.theirs[3::4]}
        assert used_inputs(db, TASK, None).judged == frozenset()
        assert not used_inputs(db, "another", filled.run_id).learned


@pytest.mark.slow
async def test_a_forgotten_users_inputs_are_not_kept(config: Config, filled: FilledFolder) -> None:
    theirs = {t.input_hash for t in filled.theirs}
    with Database(config.database_file, config.store) as db:
        assert used_inputs(db, TASK, None).learned & theirs
        await a_forgetter(db, config).forget(a_user(), actor="ann")
        used = used_inputs(db, TASK, filled.run_id)
        assert not (used.learned | used.judged) & theirs
        assert used.learned


@pytest.mark.slow
async def test_expired_inputs_are_known_by_a_salted_hash_until_they_are_forgotten(
    config: Config, filled: FilledFolder
) -> None:
    theirs = [t.input_hash for t in filled.theirs]
    others = [t.input_hash for t in filled.others]
    with Database(config.database_file, config.store) as db:
        forgetting.expire_traces(db, time.time() + 1, 1000)
        used = used_inputs(db, TASK, filled.run_id)
        assert not used.learned and not used.judged
        assert used.expired & digests(used, theirs)
        assert used.expired & digests(used, others)
        await a_forgetter(db, config).forget(a_user(), actor="ann")
        used = used_inputs(db, TASK, filled.run_id)
        assert not used.expired & digests(used, theirs)
        assert used.expired & digests(used, others)
