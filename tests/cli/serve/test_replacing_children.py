"""The supervisor replaces one child by another, with real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cli.serve.supervisor import Supervisor
from tests.helpers.polite import DEAF, POLITE, alive, child_pid, running, spec, until


@pytest.mark.slow
def test_a_successor_replaces_a_child_once_it_is_ready(tmp_path: Path) -> None:
    file, ready = tmp_path / "log", tmp_path / "ready"
    supervisor = Supervisor([spec("a", POLITE, file, "old")], say=lambda _: None)
    seen: dict[str, object] = {}

    def replace() -> None:
        def is_ready() -> bool:
            seen["both"] = file.read_text().count("start") == 2 and "term" not in file.read_text()
            return bool(seen["both"])

        started = supervisor.start_beside([spec("a", POLITE, file, "new")], is_ready, 30)
        assert started is not None
        supervisor.replace(started, ["a"])
        ready.touch()

    with running(supervisor, on_request=replace):
        until(lambda: file.exists() and "old start" in file.read_text())
        supervisor.request()
        until(lambda: ready.exists() and "old end" in file.read_text())
        assert "new term" not in file.read_text()
        # the successor is kept running, and the predecessor is not
        os.kill(child_pid(str(file), "new"), signal.SIGKILL)
        until(lambda: file.read_text().count("new start") == 2)

    assert seen == {"both": True}
    assert file.read_text().count("old start") == 1
    assert file.read_text().endswith("new term\nnew end\n")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit(3)", "b ended (exit status 3)"),
        ("import time; time.sleep(600)", ""),  # is never ready
    ],
)
@pytest.mark.slow
def test_a_successor_that_fails_changes_nothing(tmp_path: Path, script: str, said: str) -> None:
    file, done = tmp_path / "log", tmp_path / "done"
    lines: list[str] = []
    supervisor = Supervisor([spec("a", POLITE, file, "a")], say=lines.append)

    def replace() -> None:
        specs = [spec("b", script), spec("c", POLITE, file, "c")]
        assert supervisor.start_beside(specs, lambda: False, 1.5) is None
        done.touch()

    with running(supervisor, on_request=replace):
        until(lambda: file.exists() and "a start" in file.read_text())
        before = child_pid(str(file), "a")
        supervisor.request()
        until(done.exists)
        until(lambda: "c start" not in file.read_text() or "c end" in file.read_text())
        assert child_pid(str(file), "a") == before
        assert "a term" not in file.read_text()

    assert "".join(lines) == said


@pytest.mark.slow
def test_a_child_that_others_use_stops_after_them(tmp_path: Path) -> None:
    file = tmp_path / "log"
    names = ["user", "used"]
    supervisor = Supervisor([spec(n, POLITE, file, n) for n in names], say=lambda _: None)

    def leave() -> None:
        gone = supervisor.replace([], ["user"])
        supervisor.replace([], ["used"], after=gone)

    with running(supervisor, on_request=leave):
        until(lambda: file.exists() and file.read_text().count("start") == 2)
        supervisor.request()
        until(lambda: "used end" in file.read_text())

    assert file.read_text().splitlines()[2:] == [f"{n} {w}" for n in names for w in ("term", "end")]


@pytest.mark.slow
def test_a_child_that_must_not_run_twice_ends_before_its_successor_starts(tmp_path: Path) -> None:
    """Where there can be but one of them, the old one has ended before the new one starts."""
    file = tmp_path / "log"
    supervisor = Supervisor([spec("a", POLITE, file, "old")], say=lambda _: None)

    def exchange() -> None:
        supervisor.restart_with("a", spec("a", POLITE, file, "new"))

    with running(supervisor, on_request=exchange):
        until(lambda: file.exists() and "old start" in file.read_text())
        supervisor.request()
        until(lambda: "new start" in file.read_text())

    expected = ["old start", "old term", "old end", "new start", "new term", "new end"]
    assert file.read_text().splitlines() == expected


@pytest.mark.slow
def test_a_replaced_child_that_does_not_end_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    said: list[str] = []
    supervisor = Supervisor([spec("deaf", DEAF, file, grace_s=3600)], say=said.append)

    def leave() -> None:
        supervisor.replace([], ["deaf"], grace_s=0.2)

    with running(supervisor, on_request=leave):
        until(lambda: file.exists() and file.read_text().endswith("\n"))
        own = int(file.read_text())
        supervisor.request()
        until(lambda: not alive(own))

    assert said == ["deaf did not end within 0.2 s and is killed"]


@pytest.mark.slow
def test_a_stop_during_a_replacement_stops_old_and_new(tmp_path: Path) -> None:
    file = tmp_path / "log"
    supervisor = Supervisor([spec("a", POLITE, file, "old")], say=lambda _: None)

    def replace() -> None:
        assert supervisor.start_beside([spec("a", POLITE, file, "new")], lambda: False, 600) is None

    with running(supervisor, on_request=replace) as thread:
        until(lambda: file.exists() and "old start" in file.read_text())
        supervisor.request()
        until(lambda: "new start" in file.read_text())
        supervisor.stop()
        thread.join(30)
        assert not thread.is_alive()

    assert {"old end", "new end"} <= set(file.read_text().splitlines())
