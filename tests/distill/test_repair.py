"""`understudy repair`: what is saved, filled, kept and left alone, whatever the damage."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from distill.collect import collect
from distill.ownership import owned
from distill.repair import repair
from store.database.actions import append_action
from store.database.attach import wal_of
from store.database.database import Database
from store.database.forgetting import Subject, request_forgetting
from store.database.promotions import append_promotion
from store.database.replace import finish_repair
from store.database.salvage import fault_of
from store.errors import StoreLocked
from store.files.kept import KEPT_FOLDER
from store.settings.config import Config, StoreSettings, parse_config
from tests.helpers.damage import DAMAGE, LOGGED, TRACES, a_database, cut_in_half, overwrite
from tests.helpers.paths import ROOT
from tests.helpers.samples import a_promotion, a_trace, an_action, write_segment
from tests.helpers.serving import settings
from tests.helpers.stored import rows

ALL = TRACES + LOGGED


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_database(tmp_path_factory.mktemp("template"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config(settings("http://127.0.0.1:9/v1", tmp_path / "data"))


@pytest.fixture
def file(config: Config, template: Path) -> Path:
    return a_database(config.data_dir, like=template)


def without_copies(config: Config) -> None:
    shutil.rmtree(config.journal_dir / KEPT_FOLDER)


def ids(file: Path) -> list[str]:
    with Database(file, StoreSettings()) as db:
        return [row["trace_id"] for row in rows(db, "SELECT trace_id FROM traces")]


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Names, sizes and times of a folder's files."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.slow
def test_whatever_the_damage_no_trace_of_the_last_days_is_missing(
    config: Config, file: Path, harm: Callable[[Path], object]
) -> None:
    harm(file)
    found = repair(config)
    assert found.fault
    [traces] = [table for table in found.tables if table.name == "traces"]
    assert traces.saved + traces.filled == ALL
    assert not traces.lost
    assert len(set(ids(file))) == len(ids(file)) == ALL
    assert fault_of(file) is None
    again = repair(config)
    assert (again.fault, again.kept, again.tables) == (None, None, ())
    kept = config.data_dir / str(found.kept)
    assert kept.is_dir() or stat.S_IMODE(kept.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    expected = {"journal", "control.lock", file.name, kept.name, wal_of(kept).name}
    assert {path.name for path in config.data_dir.iterdir()} <= expected


@pytest.mark.slow
def test_row_groups_that_can_be_read_are_saved_and_the_rest_is_counted(
    config: Config, file: Path
) -> None:
    without_copies(config)
    os.truncate(file, file.stat().st_size - 600_000)  # its tables are still named in it
    before = file.read_bytes()
    found = repair(config)
    [traces] = [table for table in found.tables if table.name == "traces"]
    assert traces.saved > 0
    assert traces.saved + (traces.lost or 0) == ALL
    assert traces.filled == 0
    assert len(ids(file)) == traces.saved
    assert (config.data_dir / str(found.kept)).read_bytes() == before


@pytest.mark.slow
def test_a_damaged_block_costs_its_row_group_alone(config: Config, file: Path) -> None:
    without_copies(config)
    overwrite(file, 0.4, 64)
    found = repair(config)
    [traces] = [table for table in found.tables if table.name == "traces"]
    assert 0 < (traces.lost or 0) <= 2 * 2048
    assert traces.saved == ALL - (traces.lost or 0)


@pytest.mark.slow
def test_a_log_with_noise_is_replayed_up_to_it(config: Config, file: Path) -> None:
    without_copies(config)
    with Database(file, StoreSettings()) as db:  # more commits than one
        for _ in range(8):
            write_segment(config.journal_dir, a_trace())
            collect(db, config.journal_dir, {})
        copies = {path: path.read_bytes() for path in (file, wal_of(file))}
    for path, content in copies.items():
        path.write_bytes(content)
    overwrite(wal_of(file), 0.999, 20)
    found = repair(config)
    assert found.fault == "its write-ahead log cannot be read"
    assert ALL < len(ids(file)) < ALL + 8


@pytest.mark.slow
def test_a_healthy_database_is_left_as_it_is(config: Config, file: Path) -> None:
    ids(file)  # its log is in the file then
    before = {name: one for name, one in state(config.data_dir).items() if "lock" not in name}
    found = repair(config)
    assert (found.fault, found.kept, found.tables) == (None, None, ())
    after = {name: one for name, one in state(config.data_dir).items() if "lock" not in name}
    assert after == before


@pytest.mark.slow
def test_what_a_torn_log_has_lost_is_filled_in_place(config: Config, file: Path) -> None:
    os.truncate(wal_of(file), wal_of(file).stat().st_size // 2)
    found = repair(config)
    assert (found.fault, found.kept) == (None, None)
    assert {table.name: table.filled for table in found.tables} == {"traces": LOGGED}
    assert len(ids(file)) == ALL


@pytest.mark.slow
def test_promotions_actions_and_what_was_forgotten_survive(config: Config, file: Path) -> None:
    theirs = a_trace(end_user="ann")
    with Database(file, StoreSettings()) as db:
        promotion, action = a_promotion(), an_action()
        append_promotion(db, promotion)
        append_action(db, action)
        subjects = [Subject(kind="user", subject="ann", until=theirs.start_time + 60)]
        request_forgetting(db, subjects, at=0.0, actor="", reason="")
        salt = rows(db, "SELECT value FROM salt")
    overwrite(file, 0.4, 64)
    write_segment(config.journal_dir / "later", theirs)
    repair(config)
    with Database(file, StoreSettings()) as db:
        assert rows(db, "SELECT value FROM salt") == salt
        assert [r["promotion_id"] for r in rows(db, "SELECT promotion_id FROM promotions")] == [
            promotion.promotion_id
        ]
        assert [r["action_id"] for r in rows(db, "SELECT action_id FROM actions")] == [
            action.action_id
        ]
        assert collect(db, config.journal_dir / "later", {}).forgotten == 1  # not again


@pytest.mark.slow
def test_a_database_that_a_server_owns_is_left_alone(config: Config, file: Path) -> None:
    cut_in_half(file)
    with owned(config.data_dir), pytest.raises(StoreLocked, match="stop `understudy serve`"):
        repair(config)
    assert not list(config.data_dir.glob("*damaged*"))


@pytest.mark.slow
@pytest.mark.parametrize("log_moved", [False, True])
def test_a_repair_that_was_killed_is_finished_by_whoever_opens_the_database(
    config: Config, file: Path, log_moved: bool
) -> None:
    repaired = config.data_dir / "understudy.duckdb.repaired-20260131T120000"
    good = a_database(config.data_dir / "good", like=file)
    assert len(ids(good)) == ALL
    shutil.copy(good, repaired)
    shutil.rmtree(good.parent)
    cut_in_half(file)
    kept = config.data_dir / "understudy-damaged-20260131T120000.duckdb"
    os.link(file, kept)
    if log_moved:
        wal_of(file).rename(wal_of(kept))
    assert len(ids(file)) == ALL
    assert wal_of(kept).exists()
    assert not repaired.exists()
    assert finish_repair(file) is None


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_file_in_its_place(
    config: Config, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(settings("http://x/v1", config.data_dir)))
    cut_in_half(file)
    before = file.read_bytes()

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = subprocess.run(
        [sys.executable, "-m", "cli", "repair", "-c", str(tmp_path / "config.yaml")],
        cwd=ROOT,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "understudy.duckdb.repairing" in done.stderr
    assert file.read_bytes() == before
    names = {path.name for path in config.data_dir.iterdir()}
    assert names == {"journal", "control.lock", file.name, wal_of(file).name}


@pytest.mark.slow
def test_the_command_says_what_became_of_each_table(
    config: Config, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(settings("http://x/v1", config.data_dir)))
    cut_in_half(file)

    def run(*options: str) -> str:
        done = CliRunner().invoke(app, ["repair", "-c", str(tmp_path / "config.yaml"), *options])
        assert done.exit_code == 0, done.output
        return done.output

    said = run()
    assert "the database was damaged (it is cut short), and there is a new one" in said
    assert "the old file is kept as understudy-damaged-" in said
    assert any(line.split()[0] == "traces" for line in said.splitlines())
    assert "there is nothing to do" in run()
    assert json.loads(run("--json")) == {"fault": None, "kept": None, "tables": []}


def test_without_a_data_folder_there_is_nothing_to_repair(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(settings("http://x/v1", tmp_path / "data")))
    done = CliRunner().invoke(app, ["repair", "-c", str(tmp_path / "config.yaml")])
    assert done.exit_code == 2
    assert not (tmp_path / "data").exists()
