"""The launcher: runs a module as `python -m` does, and logs no contents of requests."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from distill.train.mlx_launch import BodyFilter

SECRET = "zanzibar"


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        (f"JSONDecodeError: Expecting value - Raw body: {SECRET}", "JSONDecodeError"),
        (f'Invalid Request Body: ["{SECRET}"]', "Invalid Request Body"),
        ("plain words", "plain words"),
    ],
)
def test_no_body_reaches_the_log(message: str, kept: str, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.Logger("like-root")
    logger.addFilter(BodyFilter())
    logger.addHandler(caplog.handler)
    logger.error(message)
    logger.error("%s: %s", kept, SECRET)
    assert [record.getMessage() for record in caplog.records] == [kept, kept]


def test_a_traceback_keeps_its_message(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.Logger("like-root")
    logger.addFilter(BodyFilter())
    logger.addHandler(caplog.handler)
    try:
        raise RuntimeError("no such file: weights")
    except RuntimeError:
        logger.exception("generation died: no such file: weights")
    assert "no such file" in caplog.text


def launch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distill.train.mlx_launch", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_module_runs_with_its_own_arguments(tmp_path: Path) -> None:
    (tmp_path / "guest.py").write_text(
        "import logging, sys\n"
        "print(__name__, sys.argv[1:])\n"
        f"logging.error('Invalid Request Body: {SECRET}')\n"
        "sys.exit(7)\n"
    )
    done = launch(tmp_path, "guest", "--one", "two")
    assert done.returncode == 7
    assert done.stdout == "__main__ ['--one', 'two']\n"
    assert "Invalid Request Body" in done.stderr
    assert SECRET not in done.stderr


def test_blas_comes_before_mlx(tmp_path: Path) -> None:
    """The library is loaded before the module can import MLX."""
    (tmp_path / "guest.py").write_text(
        "import sys\n"
        "from distill.train import blas\n"
        "print(blas.enable.cache_info().misses, 'mlx.core' in sys.modules)\n"
    )
    assert launch(tmp_path, "guest").stdout == "1 False\n"


def test_a_failure_ends_the_process_whatever_threads_are_left(tmp_path: Path) -> None:
    (tmp_path / "guest.py").write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "raise OSError('Address already in use')\n"
    )
    done = launch(tmp_path, "guest")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "OSError: Address already in use"


def test_a_module_must_be_named(tmp_path: Path) -> None:
    done = launch(tmp_path)
    assert done.returncode == 1
    assert "usage" in done.stderr
