"""`understudy status`, against scripted servers on loopback."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cli.status.client import server_of
from tests.helpers.cli_runs import understudy, write_config

TASK = {
    "task": "triage",
    "traces": 1412,
    "new_traces": 12,
    "due": "collecting: 12 of 200 new teacher traces",
    "stage": {
        "run_id": "run-2",
        "stage": "train",
        "done": 120,
        "total": 400,
        "note": "loss 0.41 [bold]",
        "seconds": 75.2,
        "run_seconds": 100.0,
    },
    "examples": {
        "trace": {"kept": 160, "rejected": 0, "reasons": {}},
        "synthetic": {"kept": 300, "rejected": 17, "reasons": {"duplicate": 17}},
    },
    "last_run": {
        "run_id": "run-1",
        "state": "promoted",
        "reason": "lower bound 0.962",
        "started_at": 1.0,
        "ended_at": 2.0,
        "stages": {"collected": 0.2, "trained": 61.5},
        "detail": {},
    },
    "certificate": {
        "method": "clopper-pearson",
        "threshold": 0.95,
        "score": 0.981,
        "lower_bound": 0.962,
        "n": 311,
        "coverage": 0.87,
        "passed": True,
    },
    "route": {"task": "triage", "target": "student", "reason": "certified"},
    "served": {
        "teacher": {"requests": 900, "errors": 2, "p50_ms": 800.5, "p95_ms": 2100.0, "reasons": {}},
        "student": {"requests": 512, "errors": 0, "p50_ms": 41.0, "p95_ms": 90.0, "reasons": {}},
    },
    "tokens": {
        "traffic": {"calls": 900, "input": 100_000, "output": 20_000, "estimated": 1_500},
        "distilling": {
            "policy": {"calls": 1, "input": 5_000, "output": 600},
            "answers": {"calls": 300, "input": 40_000, "output": 4_400},
        },
    },
    "cost_usd": {"traffic": 1.25, "distilling": None, "saved": 0.5},
}
STATUS = {
    "version": "0.1.0",
    "store": {"ok": False, "error": "the disk is full", "collected": 1, "damaged": 3},
    "students": {"triage": "ready"},
    "tasks": [TASK],
}


@contextmanager
def status_server(
    answers: dict[str, tuple[int, Any]],
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A scripted server: its URL, and the path and Authorization of each request it gets."""
    requests: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append((self.path, self.headers.get("Authorization", "")))
            code, body = answers.get(
                self.path, (404, {"detail": "no request has had this task yet"})
            )
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keeps the output of the tests clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_status_shows_everything_about_every_task() -> None:
    with status_server({"/distill/status": (200, STATUS)}) as (url, _):
        done = understudy("status", "--server", url)

    assert done.exit_code == 0, done.stderr
    for shown in (
        *("triage", "1,412 traces", "160 trace", "300 synthetic, 17 rejected"),
        *("train 120 of 400, 1 min 15 s", "loss 0.41 [bold]"),
        *("student: certified", "proven 96.2% ≥ 95%"),
        *("coverage 87%", "teacher 900, 2 errors", "800/2,100 ms", "student 512", "41/90 ms"),
        *(
            "traffic 120,000",
            "1,500 of them estimated",
            "$1.2500",
            "distilling 50,000",
            "price unknown",
        ),
        *("saved $0.5000", "store: the disk is full", "students: triage ready"),
    ):
        assert shown in done.stdout, shown


def test_status_of_one_task_has_every_number_of_the_certificate() -> None:
    with status_server({"/distill/status/triage": (200, TASK)}) as (url, _):
        done = understudy("status", "triage", "--server", f"{url}/v1")

    assert done.exit_code == 0, done.stderr
    for name, value in TASK["certificate"].items():  # type: ignore[union-attr]
        assert f"{name}: {'yes' if value is True else value}" in done.stdout
    for shown in ("run-1", "trained: 1 min 2 s", "collecting: 12 of 200", "target: student"):
        assert shown in done.stdout


def test_status_as_json_is_the_servers_answer() -> None:
    with status_server({"/distill/status": (200, STATUS)}) as (url, _):
        done = understudy("status", "--server", url, "--json")

    assert json.loads(done.stdout) == STATUS


@pytest.mark.parametrize("body", [{}, {"tasks": []}, {"tasks": [{"task": "triage"}]}, [], None])
def test_status_of_another_version_with_missing_fields_is_shown(body: Any) -> None:
    with status_server({"/distill/status": (200, body)}) as (url, _):
        done = understudy("status", "--server", url)

    assert done.exit_code == 0, done.stderr
    assert ("triage" if body and body.get("tasks") else "No request had a task yet") in done.stdout


def test_status_sends_the_given_key_or_the_first_of_the_config(tmp_path: Path) -> None:
    keys = [{"key": "os.environ/FIRST_KEY", "name": "a"}, {"key": "second", "name": "b"}]
    with status_server({"/distill/status": (200, STATUS)}) as (url, requests):
        port = int(url.rpartition(":")[2])
        file = write_config(tmp_path, server={"port": port, "keys": keys})
        env = {"FIRST_KEY": "first"}
        understudy("status", "--config", file, env=env)
        understudy("status", "--config", file, env={**env, "UNDERSTUDY_KEY": "from-environment"})
        understudy("status", "--config", file, "--key", "given", env=env)

    assert [key for _, key in requests] == [
        "Bearer first",
        "Bearer from-environment",
        "Bearer given",
    ]


def test_a_command_takes_a_key_with_the_right_or_the_servers_own(tmp_path: Path) -> None:
    def key(**keys: list[str]) -> str | None:
        listed = [{"key": f"k-{n}", "name": n, "may": may} for n, may in keys.items()]
        file = Path(write_config(tmp_path, server={"keys": listed}))
        return server_of(file, None, needs="operate")[1]

    assert key(a=["use"], b=["use", "operate"]) == "k-b"
    assert key(a=["use"]) == "k-a"
    (tmp_path / "data").mkdir()
    note = {"pid": 1, "url": "http://127.0.0.1:1", "operator_key": "own"}
    (tmp_path / "data" / "serve.lock").write_text(json.dumps(note))
    assert key(a=["use"]) == "own"
    assert key(a=["operate"]) == "k-a"


def test_status_finds_a_server_on_an_automatic_port(tmp_path: Path) -> None:
    file = write_config(tmp_path, server={"port": 0})
    with status_server({"/distill/status": (200, STATUS)}) as (url, _):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "serve.lock").write_text(json.dumps({"pid": 1, "url": url}))
        assert understudy("status", "--config", file).exit_code == 0


def test_status_without_a_server_fails_with_a_hint(tmp_path: Path) -> None:
    with status_server({}) as (url, _):
        pass

    done = understudy("status", "--server", url)

    assert done.exit_code == 1
    assert f"no status from {url}" in done.stderr
    assert "is `understudy serve` running there?" in done.stderr


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {"error": {"message": "no such key"}}), "wants a key: give one with --key"),
        (
            (503, {"error": {"message": "the control plane is down"}}),
            r"no status now \(HTTP 503\): the control plane is down",
        ),
        ((500, b"<html>"), r"no status now \(HTTP 500\)\n"),
        ((200, b"<html>"), "no status from"),
    ],
)
def test_status_shows_the_servers_error_message(answer: tuple[int, Any], message: str) -> None:
    with status_server({"/distill/status": answer}) as (url, _):
        done = understudy("status", "--server", url)

    assert done.exit_code == 1
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_status_of_an_unknown_task_fails_with_its_name() -> None:
    with status_server({}) as (url, requests):
        done = understudy("status", "../../v1/models", "--server", url)

    assert done.exit_code == 1
    assert "has no task ../../v1/models: no request has had this task yet" in done.stderr
    assert requests[0][0] == "/distill/status/..%2F..%2Fv1%2Fmodels"


def restore_sigint() -> None:
    """A test run that is a shell's background job hands down an ignored SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_status_watch_repeats_until_ctrl_c() -> None:
    with status_server({"/distill/status": (200, STATUS)}) as (url, requests):
        command = [sys.executable, "-m", "cli", "status", "--server", url, "--json", "--watch"]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=restore_sigint,  # noqa: PLW1509 - nothing else runs in this process
        ) as watching:
            assert watching.stdout is not None
            lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
            watching.send_signal(signal.SIGINT)
            _, stderr = watching.communicate(timeout=30)

    assert lines == [STATUS, STATUS]
    assert len(requests) >= 2
    assert watching.returncode == 130
    assert stderr == b""
