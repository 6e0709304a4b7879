"""Files that are replaced whole, and line files that stay readable whatever happens to a write."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from store.files.atomic import ASIDE, make_folder, make_room, read_lines, write_atomically
from store.files.line_log import LineLog

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from store.files.line_log import LineLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
log = LineLog(Path(sys.argv[1]))
log.append({"n": 1})
try:
    log.append({"n": "x" * 200})
except OSError as error:
    sys.exit(3)
"""


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    log = LineLog(tmp_path / "lines.jsonl")
    ended = subprocess.run([sys.executable, "-c", FULL_DISK, str(log.path)], check=False)
    assert ended.returncode == 3
    assert log.load() == [{"n": 1}]
    log.append({"n": 2})
    assert log.load() == [{"n": 1}, {"n": 2}]


def test_a_torn_last_line_and_no_file_are_no_lines(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    assert read_lines(file) == LineLog(file).load() == []
    file.write_bytes(b'{"n": 1}\n{"n": 2')
    assert read_lines(file) == [{"n": 1}]


def test_a_log_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    log = LineLog(tmp_path / "lines.jsonl")
    log.path.write_bytes(b'{"n": 1}\n{"n": 2')
    assert log.load() == [{"n": 1}]
    log.append({"n": 3})
    assert log.load() == [{"n": 1}, {"n": 3}]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "file"
    write_atomically(file, b"one")
    write_atomically(file, b"two")
    assert file.read_bytes() == b"two"
    assert [f.name for f in file.parent.iterdir()] == ["file"]


def a_directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_bytes(b"somebody's")


def a_file(path: Path) -> None:
    path.write_bytes(b"somebody's")


def a_dangling_link(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


IN_THE_WAY = [a_directory, a_dangling_link, os.mkfifo]


@pytest.mark.parametrize("put", IN_THE_WAY)
def test_a_file_is_written_whatever_stands_in_its_place(
    put: Callable[[Path], None], tmp_path: Path
) -> None:
    file = tmp_path / "routes.json"
    put(file)

    write_atomically(file, b"ours")

    assert not file.is_symlink()
    assert file.read_bytes() == b"ours"
    beside = [path for path in tmp_path.iterdir() if path != file]
    assert all(path.name.endswith(ASIDE) for path in beside)
    assert [path.read_bytes() for path in tmp_path.glob("*/inside")] == (
        [b"somebody's"] if put is a_directory else []
    )


@pytest.mark.parametrize("put", [a_file, a_dangling_link, os.mkfifo])
def test_a_folder_is_made_whatever_stands_in_its_place(
    put: Callable[[Path], None], tmp_path: Path
) -> None:
    put(tmp_path / "accepted")

    write_atomically(tmp_path / "accepted" / "config.yaml", b"ours")
    make_folder(tmp_path / "accepted")

    assert (tmp_path / "accepted" / "config.yaml").read_bytes() == b"ours"
    [aside] = [path for path in tmp_path.iterdir() if path.name.endswith(ASIDE)]
    assert aside.is_symlink() == (put is a_dangling_link)


@pytest.mark.parametrize("put", IN_THE_WAY)
def test_what_is_no_file_makes_room_for_one(put: Callable[[Path], None], tmp_path: Path) -> None:
    log = tmp_path / "student.log"
    put(log)
    make_room(log)
    assert not os.path.lexists(log)
    log.write_bytes(b"a line")
    make_room(log)
    assert log.read_bytes() == b"a line"


def test_a_link_to_a_folder_elsewhere_makes_room_where_none_may_be(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "damaged"
    folder.symlink_to(tmp_path / "elsewhere")
    assert make_folder(folder).is_symlink()
    assert not make_folder(folder, linked=False).is_symlink()
    assert folder.is_dir()
