"""One process owns the database at a time, also while another one is still stopping."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from distill.ownership import owned
from store.errors import StoreError, StoreLocked
from tests.helpers.paths import ROOT

OWNER = """
import sys
from pathlib import Path
from distill.ownership import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    sys.stdin.read()
"""


def test_a_second_owner_waits_for_the_end_of_the_first(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == b"owned\n"
    with pytest.raises(StoreLocked), owned(tmp_path, max_wait_s=0):
        pass
    first.kill()
    with owned(tmp_path):
        assert first.wait() == -9
    first.communicate()


def test_a_folder_in_the_place_of_the_lock_makes_room(tmp_path: Path) -> None:
    (tmp_path / "control.lock").mkdir()
    with owned(tmp_path):
        assert (tmp_path / "control.lock").is_file()
    assert len(list(tmp_path.glob("control.lock.*.aside"))) == 1


def test_a_lock_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"no folder")
    with pytest.raises(StoreError, match="cannot be used"), owned(tmp_path / "data"):
        pass
