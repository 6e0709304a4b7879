"""The database: opened the tuned way, migrated, thread-safe, and clear about what it cannot do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from store.database.database import Database
from store.database.promotions import append_promotion, latest_promotions, promotions_of_task
from store.database.runs import replace_examples
from store.database.traces import task_counts
from store.errors import InputRefused, StoreError, StoreLocked
from store.ids import new_id
from store.settings.config import StoreSettings
from tests.helpers.paths import ROOT
from tests.helpers.samples import a_promotion, an_example
from tests.helpers.stored import examples_of_run

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def file(database_file: Path) -> Path:
    return database_file


def run(script: str, *arguments: str) -> list[str]:
    """Runs a script in a process of its own and returns the lines that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# ---- how it is opened --------------------------------------------------------------------------


@pytest.mark.slow
def test_row_groups_are_small_and_payloads_compressed(file: Path) -> None:
    run_id = new_id()
    with Database(file, StoreSettings()) as db:
        text = "the same words again and again " * 20
        examples = [an_example(run_id, input_messages=f"{n} {text}") for n in range(5000)]
        replace_examples(db, run_id, examples)
        db.checkpoint()
    with duckdb.connect(str(file), read_only=True) as plain:
        groups, compressions = plain.execute(
            "SELECT count(DISTINCT row_group_id), list(DISTINCT compression)"
            " FROM pragma_storage_info('examples')"
            " WHERE column_name = 'input_messages' AND segment_type = 'VARCHAR'"
        ).fetchall()[0]
    assert groups == 3  # 5,000 rows in groups of 2,048
    assert [c.upper() for c in compressions] == ["ZSTD"]


def test_settings_reach_duckdb(file: Path) -> None:
    with pytest.raises(StoreError, match=r"store\.memory_limit a lot cannot be set"):
        Database(file, StoreSettings(memory_limit="a lot"))
    with Database(file, StoreSettings(memory_limit="64MB", threads=3)) as db:
        found = db._connection.cursor().execute(  # type: ignore[union-attr]
            "SELECT current_setting('memory_limit'), current_setting('threads')"
        )
        assert found.fetchall() == [("61.0 MiB", 3)]


def test_rows_are_there_after_the_database_is_opened_again(file: Path) -> None:
    promotion = a_promotion()
    with Database(file, StoreSettings()) as db:
        append_promotion(db, promotion)
    with Database(file, StoreSettings()) as db:
        assert latest_promotions(db) == {"triage": promotion}


def test_the_database_is_one_file_in_a_folder_that_only_its_owner_reads(file: Path) -> None:
    with Database(file, StoreSettings()) as db:
        append_promotion(db, a_promotion())
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    assert file.parent.stat().st_mode & 0o077 == 0


def test_a_path_with_quotes_and_wildcards_is_a_path(tmp_path: Path) -> None:
    file = tmp_path / "it's [1]*" / "under;study.duckdb"
    with Database(file, StoreSettings()) as db:
        assert task_counts(db) == {}
    assert file.exists()


# ---- what it cannot do -------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from store.settings.config import (StoreSettings)
from store.database.database import Database

with Database(Path(sys.argv[1]), StoreSettings()):
    print("open", flush=True)
    sys.stdin.read()
"""
OPENER = """
import sys
from pathlib import Path
from store.settings.config import (StoreSettings)
from store.database.database import Database
from store.errors import StoreLocked

try:
    Database(Path(sys.argv[1]), StoreSettings())
except StoreLocked as error:
    print(error)
"""


@pytest.mark.slow
def test_a_file_in_use_names_the_process_that_has_it(file: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"open\n"
    with pytest.raises(StoreLocked, match=rf"in use by process {holder.pid}: stop it, or use"):
        Database(file, StoreSettings())
    holder.communicate(b"")
    with Database(file, StoreSettings()):
        (told,) = run(OPENER, str(file))
        assert told.startswith(f"{file} is in use by process {os.getpid()}")
        with pytest.raises(StoreError, match="already attached"):
            Database(file, StoreSettings())


@pytest.mark.slow
def test_kill_9_of_the_owner_frees_the_file(file: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdin is not None
    holder.stdout.readline()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    with Database(file, StoreSettings()) as db:
        assert task_counts(db) == {}


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(StoreError, match=f"{tmp_path}/data"):
        Database(tmp_path / "data" / "understudy.duckdb", StoreSettings())
    with pytest.raises(StoreError, match="cannot be made"):
        Database(tmp_path / "data" / "deeper" / "understudy.duckdb", StoreSettings())


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "understudy.duckdb"
    file.write_text("dear diary" * 1000)
    with pytest.raises(StoreError, match=r"no DuckDB file.*understudy repair"):
        Database(file, StoreSettings())
    assert file.read_text() == "dear diary" * 1000


def test_a_closed_database_refuses_every_operation(file: Path) -> None:
    db = Database(file, StoreSettings())
    db.close()
    db.close()
    with pytest.raises(StoreError, match="is closed"):
        task_counts(db)


def test_an_error_never_shows_a_value(db: Database) -> None:
    secret = "sk-live-1234"
    with pytest.raises(InputRefused) as caught:
        db.execute("insert_policy", run_id=secret, task="triage", policy="{}", at=1.0)
    with pytest.raises(StoreError) as other:
        db.execute("insert_examples", rows=f'[{{"target": "{secret}"}}]')
    for error in (caught.value, other.value):
        assert secret not in str(error)
        assert error.__cause__ is None and error.__suppress_context__


DISK = """
import logging, os, resource, sys
from pathlib import Path
from tests.helpers.samples import an_example
from tests.helpers.stored import examples_of_run
from store.database.runs import replace_examples
from store.settings.config import (StoreSettings)
from store.database.database import Database
from store.errors import StoreError
from store.ids import new_id

logging.basicConfig(stream=sys.stdout)
before, limit = int(sys.argv[2]), int(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
done, refused = [], []
with Database(Path(sys.argv[1]), StoreSettings()) as db:
    def write():  # 1.6 MB, half as much in the file
        run_id = new_id()
        examples = [an_example(run_id, target=os.urandom(40_000).hex()) for _ in range(20)]
        try:
            replace_examples(db, run_id, examples)
            done.append(run_id)
        except StoreError as error:
            refused.append(run_id)
    for _ in range(before):
        write()
    db.checkpoint()
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    for _ in range(16):
        write()
    print("refused", len(refused), "of", len(done) + len(refused))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    write()
    db.checkpoint()
    print("last one kept", done[-1] not in refused and len(examples_of_run(db, done[-1])))
    print("absent", all(not examples_of_run(db, run) for run in refused))
with Database(Path(sys.argv[1]), StoreSettings()) as db:
    print("kept", all(len(examples_of_run(db, run)) == 20 for run in done))
"""


@pytest.mark.parametrize(
    ("before", "limit", "checkpoint_fails"),
    [(0, 6_000_000, False), (12, 20_000_000, True)],
    ids=["at_a_commit", "at_an_automatic_checkpoint"],
)
@pytest.mark.slow
def test_a_full_disk_refuses_what_it_cannot_keep_and_goes_on_afterwards(
    file: Path, before: int, limit: int, checkpoint_fails: bool
) -> None:
    """What was acknowledged is there, what was refused is not, and space heals it."""
    told = "\n".join(run(DISK, str(file), str(before), str(limit)))
    assert re.search(r"refused [1-9]", told)
    assert ("committed, but the checkpoint failed" in told) is checkpoint_fails
    assert "last one kept 20" in told
    assert "absent True" in told
    assert "kept True" in told


# ---- transactions and threads ------------------------------------------------------------------


def test_a_failed_transaction_changes_nothing(db: Database) -> None:
    run_id = new_id()
    kept = [an_example(run_id)]
    replace_examples(db, run_id, kept)
    with pytest.raises(RuntimeError, match="on purpose"), db.transaction():
        db.execute("delete_examples", run_id=run_id)
        assert examples_of_run(db, run_id) == []  # it sees its own changes
        raise RuntimeError("on purpose")
    assert examples_of_run(db, run_id) == kept
    with pytest.raises(StoreError), db.transaction():
        replace_examples(db, run_id, [])
        db.execute("insert_examples", rows="[{}]")  # breaks a NOT NULL
    assert examples_of_run(db, run_id) == kept


def test_other_threads_see_a_transaction_only_after_its_commit(db: Database) -> None:
    seen: list[int] = []

    def look() -> None:
        seen.append(len(latest_promotions(db)))

    with db.transaction():
        append_promotion(db, a_promotion())
        reader = threading.Thread(target=look)
        reader.start()
        reader.join()
    look()
    assert seen == [0, 1]


@pytest.mark.slow
def test_many_threads_write_and_read(db: Database) -> None:
    faults: list[BaseException] = []
    stop = threading.Event()

    def write(task: str) -> None:
        try:
            for n in range(12):
                with db.transaction():
                    append_promotion(db, a_promotion(task=task, reason=f"{n} first"))
                    append_promotion(db, a_promotion(task=task, reason=f"{n} second"))
        except BaseException as fault:  # a thread's fault must reach the test
            faults.append(fault)

    def read() -> None:
        try:
            while not stop.is_set():
                for task in "abcd":
                    history = promotions_of_task(db, task, limit=100)
                    assert len(history) % 2 == 0
        except BaseException as fault:
            faults.append(fault)

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(task,)) for task in "abcd"]
    for thread in [*readers, *writers]:
        thread.start()
    db.checkpoint()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert faults == []
    assert all(len(promotions_of_task(db, task, limit=100)) == 24 for task in "abcd")
