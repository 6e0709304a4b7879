"""Forgetting that is killed at any statement: the next start finishes it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from store.database import forgetting
from store.database.database import Database
from store.database.traces import task_counts
from store.settings.config import parse_config
from tests.helpers.forget_scene import CANARY, TASK, a_forgetter, fill_folder, places_of
from tests.helpers.paths import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
ENTRY = {"model_name": "gpt-4o", "litellm_params": {"model": "openai/gpt-4o", "api_key": "k"}}

# One process that has imported everything forks one for each data folder that it is given.
VICTIMS = """
import asyncio, os, signal, sys, time
from tests.helpers.forget_scene import USER, a_forgetter
from store.settings.config import parse_config
from store.database.database import Database
from store.database.forgetting import Subject

class Dying(Database):
    left = 0

    def count_down(self):
        Dying.left -= 1
        if Dying.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _execute_named(self, cursor, name, params):  # before each named query…
        self.count_down()
        super()._execute_named(cursor, name, params)

    def _execute_sql(self, cursor, sql):  # …and each BEGIN, CHECKPOINT, ATTACH and COPY…
        if not sql.startswith("USE"):
            self.count_down()
        super()._execute_sql(cursor, sql)

    def _commit(self, cursor):  # …and COMMIT, and after it
        self.count_down()
        super()._commit(cursor)
        self.count_down()

    def _replace_file(self, fresh):
        self.count_down()
        super()._replace_file(fresh)
        self.count_down()

def forget(folder, left):
    entry = {"model_name": "gpt-4o", "litellm_params": {"model": "openai/gpt-4o", "api_key": "k"}}
    config = parse_config({"model_list": [entry], "data_dir": folder})
    subjects = [Subject(kind="user", subject=USER, until=time.time())]
    Dying.left = left
    with Dying(config.database_file, config.store) as db:
        Dying.left = left
        asyncio.run(a_forgetter(db, config).forget(subjects, actor="ann"))

for line in sys.stdin:
    left, folder = line.rstrip().split(" ", 1)
    if not (child := os.fork()):
        forget(folder, int(left))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


async def finish(data_dir: Path) -> bool:
    """Resumes, as the next start does. Returns whether anything had been requested."""
    config = parse_config({"model_list": [ENTRY], "data_dir": str(data_dir)})
    with Database(config.database_file, config.store) as db:
        requested = bool(db.query("any_forgotten"))
        await a_forgetter(db, config).resume()
        assert forgetting.unfinished_forgettings(db) == []
        assert task_counts(db)[TASK] == (12 if requested else 18)
        if requested:
            assert sum(mark.traces for mark in forgetting.marked_runs(db).values()) == 4
    return requested


@pytest.mark.slow
def test_a_forgetting_that_is_killed_at_any_point_is_finished_by_the_next_start(
    tmp_path: Path,
) -> None:
    ended, begun = [], 0
    template = tmp_path / "template"
    fill_folder(parse_config({"model_list": [ENTRY], "data_dir": str(template)}))
    with subprocess.Popen(
        [sys.executable, "-c", VICTIMS],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as victims:
        assert victims.stdin is not None and victims.stdout is not None
        for number in range(1, 600, 11):
            folder = tmp_path / str(number)
            shutil.copytree(template, folder)
            print(number, folder, file=victims.stdin, flush=True)
            ended.append(int(victims.stdout.readline()))
            if asyncio.run(finish(folder)):
                begun += 1
                assert places_of(CANARY, folder) == []
            if ended[-1] != -signal.SIGKILL:
                break
        victims.stdin.close()
    assert ended.pop() == 0, "it failed, or has more statements than were tried"
    assert len(ended) >= 6
    assert begun >= 5
