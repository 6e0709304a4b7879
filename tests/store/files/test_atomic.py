"""Files that are replaced whole, and line files that stay readable whatever happens to a write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from store.files.atomic import read_lines, write_atomically
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
