"""The supervisor with real child processes: restarts, and the order of stopping."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.serve.children import MAX_LOG_BYTES, Child, ChildSpec, describe_exit, restart_delay
from cli.serve.supervisor import Supervisor
from tests.helpers.polite import DEAF, POLITE, alive, child_pid, running, spec, until


@pytest.mark.parametrize(
    ("ends", "seconds"), [(1, 0.5), (2, 1), (3, 2), (6, 16), (7, 30), (8, 30), (10_000, 30)]
)
def test_the_delay_doubles_up_to_half_a_minute(ends: int, seconds: float) -> None:
    assert restart_delay(ends) == seconds


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "killed by SIGKILL"), (-250, "signal 250")],
)
def test_an_exit_status_is_described_in_words(code: int, words: str) -> None:
    assert words in describe_exit(code)


def test_who_watches_over_a_child_hears_of_each_start() -> None:
    pids: list[int] = []
    child = Child(ChildSpec(name="x", argv=["true"], env={}, on_start=pids.append))
    started = []
    for _ in range(2):
        child.start()
        assert child.process is not None
        child.process.wait()
        started.append(child.process.pid)
    assert pids == started


def test_a_spec_does_not_show_its_environment() -> None:
    shown = repr(ChildSpec(name="x", argv=["x"], env={"KEY": "sk-secret"}))

    assert "sk-secret" not in shown


@pytest.mark.slow
def test_a_child_that_ends_is_started_again_after_a_growing_delay(tmp_path: Path) -> None:
    file = tmp_path / "starts"
    script = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(3)"
    said: list[str] = []
    asked: list[int] = []

    def delay(ends: int) -> float:
        asked.append(ends)
        return 0.01 * ends

    with running(Supervisor([spec("child", script, file)], say=said.append, delay=delay)):
        until(lambda: len(asked) >= 3)

    assert asked[:3] == [1, 2, 3]
    assert len(file.read_text()) >= 3
    assert said[0] == "child ended (exit status 3), next start in 0.01 s"
    assert said[1].startswith("child is started again (pid ")


@pytest.mark.slow
def test_the_delay_starts_over_after_a_healthy_run() -> None:
    asked: list[int] = []

    def delay(ends: int) -> float:
        asked.append(ends)
        return 0.0

    children = [spec("child", "")]
    with running(Supervisor(children, say=lambda _: None, delay=delay, healthy_after_s=0)):
        until(lambda: len(asked) >= 3)

    assert set(asked) == {1}


@pytest.mark.slow
def test_a_killed_child_comes_back_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "log"
    specs = [spec("a", POLITE, file, "a"), spec("b", POLITE, file, "b")]
    supervisor = Supervisor(specs, say=lambda _: None, delay=lambda _: 0.01)
    with running(supervisor):
        until(lambda: file.exists() and len(file.read_text().split("\n")) == 3)
        other = child_pid(str(file), "b")
        os.kill(child_pid(str(file), "a"), signal.SIGKILL)
        until(lambda: file.read_text().count("a start") == 2)
        assert child_pid(str(file), "b") == other

    assert file.read_text().count("b start") == 1


@pytest.mark.slow
def test_children_are_stopped_stage_by_stage(tmp_path: Path) -> None:
    file = tmp_path / "log"
    names = ["first", "second", "third"]
    specs = [spec(name, POLITE, file, name, stage=stage) for stage, name in enumerate(names)]
    with running(Supervisor(specs[::-1], say=lambda _: None)):
        until(lambda: file.exists() and file.read_text().count("start") == 3)

    stopped = file.read_text().splitlines()[3:]
    assert stopped == [f"{name} {what}" for name in names for what in ("term", "end")]


@pytest.mark.slow
def test_children_of_a_stage_are_stopped_together(tmp_path: Path) -> None:
    file = tmp_path / "log"
    names = ["one", "other"]
    specs = [spec(name, POLITE, file, name) for name in names]
    with running(Supervisor(specs, say=lambda _: None)):
        until(lambda: file.exists() and file.read_text().count("start") == 2)

    stopped = [line.split()[1] for line in file.read_text().splitlines()[2:]]
    assert stopped == ["term", "term", "end", "end"]


@pytest.mark.slow
def test_a_child_that_does_not_stop_is_killed_with_its_own_children(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    said: list[str] = []
    supervisor = Supervisor([spec("deaf", DEAF, file, grace_s=0.2)], say=said.append)
    with running(supervisor) as thread:
        until(lambda: file.exists() and file.read_text().endswith("\n"))
        pids = [child_pid(str(file)), int(file.read_text())]
        supervisor.stop()
        thread.join(30)
        assert not thread.is_alive()

    assert said == ["deaf did not stop within 0.2 s and is killed"]
    until(lambda: not any(alive(pid) for pid in pids))


def test_a_second_stop_waits_for_nobody(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    said: list[str] = []
    supervisor = Supervisor([spec("deaf", DEAF, file, grace_s=3600)], say=said.append)
    with running(supervisor) as thread:
        until(lambda: file.exists() and file.read_text().endswith("\n"))
        supervisor.stop()
        supervisor.stop()
        thread.join(30)
        assert not thread.is_alive()

    assert said == []


@pytest.mark.slow
def test_processes_that_it_did_not_start_are_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        file = tmp_path / "log"
        with running(Supervisor([spec("a", POLITE, file, "a")], say=lambda _: None)):
            until(file.exists)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.slow
def test_a_missing_program_is_reported_and_tried_again() -> None:
    said: list[str] = []
    child = ChildSpec(name="child", argv=["/nonexistent/program"], env={})
    with running(Supervisor([child], say=said.append, delay=lambda _: 0.01)):
        until(lambda: len(said) >= 2)

    assert said[0] == "child could not be started (No such file or directory), next start in 0.01 s"
    assert said[1] == said[0]


def test_a_child_inherits_the_socket_and_has_its_folder_and_log(tmp_path: Path) -> None:
    read, write = os.pipe()
    script = (
        "import os, time\n"
        f"os.write({write}, os.getcwd().encode())\n"
        "print('said', flush=True)\n"
        "time.sleep(600)\n"
    )
    log = tmp_path / "child.log"
    child = spec("child", script, pass_fds=(write,), cwd=tmp_path, log=log, grace_s=5)
    with running(Supervisor([child], say=lambda _: None)):
        assert os.read(read, 1000).decode() == str(tmp_path.resolve())
        until(lambda: log.exists() and log.read_text() == "said\n")
    os.close(read)
    os.close(write)

    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_log_that_grows_is_emptied_while_the_child_writes_on(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    log.write_bytes(b"x" * (MAX_LOG_BYTES + 1))
    script = "import time\nwhile True:\n    print('line', flush=True)\n    time.sleep(0.05)"
    with running(Supervisor([spec("child", script, log=log)], say=lambda _: None)):
        until(lambda: 0 < log.stat().st_size < 1000)

    assert set(log.read_text().split("\n")) <= {"line", ""}


PARENT = """
import os, sys
from cli.serve.children import ChildSpec
from cli.serve.serve import stop_on_signals
from cli.serve.supervisor import Supervisor
from cli.serve.terminal import Terminal
script, file = sys.argv[1:]
argv = [sys.executable, "-c", script, file, "child"]
child = ChildSpec(name="child", argv=argv, env=os.environ, grace_s=3600)
supervisor = Supervisor([child], say=print)
with stop_on_signals(supervisor, Terminal()):
    supervisor.run()
print("in order")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_a_signal_stops_everything_in_order(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "log"
    argv = [sys.executable, "-c", PARENT, POLITE, str(file)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, process_group=0) as parent:
        until(lambda: file.exists() and "start" in file.read_text())
        os.killpg(parent.pid, number)  # as a terminal does: to the whole foreground group
        out, _ = parent.communicate(timeout=30)

    assert parent.returncode == 0
    assert out == "in order\n"
    # once: the group's signal reached the supervisor alone
    assert file.read_text() == "child start\nchild term\nchild end\n"


@pytest.mark.slow
def test_a_second_signal_ends_a_child_that_does_not_stop(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    argv = [sys.executable, "-c", PARENT, DEAF, str(file)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        until(lambda: file.exists() and file.read_text().endswith("\n"))
        # two of the same kind might be delivered as one
        parent.send_signal(signal.SIGINT)
        parent.send_signal(signal.SIGTERM)
        parent.communicate(timeout=30)

    assert parent.returncode == 0
    until(lambda: not alive(int(file.read_text())))
