"""The proxy as a running server: in a thread of the test, or in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import yaml

from proxy.app import build
from proxy.http.protocol import Protocol
from proxy.worker import worker
from store.files.routes import publish_routes
from store.process.runtime import Runtime
from store.records import Route
from store.settings.config import Config, parse_config
from tests.helpers.journal_lines import journal_text
from tests.helpers.paths import ROOT
from tests.helpers.samples import route_with

TEACHER_KEY = "sk-the-teachers-own-key"
CLIENT_KEY = "sk-what-the-client-sends"
CONTROL_TOKEN = "token-of-this-run"


def settings(teacher_base_url: str, data_dir: Path, **overrides: Any) -> dict[str, Any]:
    """A config with one directly called deployment, `gpt-4o`."""
    params = {"model": "openai/gpt-4o", "api_base": teacher_base_url, "api_key": TEACHER_KEY}
    return {
        "model_list": [{"model_name": "gpt-4o", "litellm_params": params}],
        "data_dir": str(data_dir),
        **overrides,
    }


def wait_until(true: Callable[[], Any], *, within_s: float = 20) -> Any:
    """The first true value of a condition. Fails when there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


class RunningProxy:
    """What tests ask of a running proxy, wherever it runs."""

    def __init__(self, config: Config, port: int) -> None:
        self.config = config
        self.port = port
        self.url = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.url}/v1"

    def journal(self) -> str:
        """All that has been journalled, as text."""
        return journal_text(self.config.journal_dir)

    def traces(self) -> list[dict[str, Any]]:
        """All traces that have been journalled, oldest first."""
        return [json.loads(line) for line in self.journal().split("\n") if line]

    def wait_for_traces(self, count: int) -> list[dict[str, Any]]:
        """The traces once there are so many; fails on more."""
        wait_until(lambda: len(self.traces()) >= count)
        traces = self.traces()
        assert len(traces) == count, [t["outcome"] for t in traces]
        return traces

    def publish(self, *routes: Route) -> None:
        """Publishes the routes as the control plane would."""
        publish_routes(self.config.routes_file, {r.task: r for r in routes}, at=time.time())


class ProxyThread(RunningProxy):
    """The proxy in a thread."""

    def __init__(self, raw: dict[str, Any], **runtime: Any) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        super().__init__(parse_config(raw), listening.getsockname()[1])
        known = {"config_path": "", "control_port": 1, "control_token": CONTROL_TOKEN, **runtime}
        app = build(self.config, Runtime(**known))
        self._server = worker(app, settings=self.config.server, refused=app.refused)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    @property
    def connections(self) -> list[Protocol]:
        """Those of clients, as the proxy has them."""
        return [c for c in self._server.server_state.connections.copy() if isinstance(c, Protocol)]


def in_its_loop(connection: Protocol, what: Callable[[], Any]) -> Any:
    """What this gives when it is called in the connection's own thread."""
    given: Future[Any] = Future()

    def call() -> None:
        try:
            given.set_result(what())
        except BaseException as error:
            given.set_exception(error)

    connection.loop.call_soon_threadsafe(call)
    return given.result(20)


class ProxyProcess(RunningProxy):
    """The proxy as `understudy serve` starts it: `python -m proxy.worker --fd N`."""

    def __init__(self, raw: dict[str, Any], folder: Path) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        super().__init__(parse_config(raw), self._listening.getsockname()[1])
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(raw), encoding="utf-8")
        runtime = Runtime(str(file), control_port=1, control_token=CONTROL_TOKEN)
        self.environment = runtime.environment()
        self.fd = self._listening.fileno()
        self.log_file = folder / "proxy.log"

    def __enter__(self) -> Self:
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "proxy.worker", "--fd", str(self.fd)],
                env=self.environment,
                pass_fds=[self.fd],
                stderr=log,
                cwd=ROOT,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        self._listening.close()

    def stop_listening(self) -> None:
        """Closes the socket that outlives the process, and with it whoever waits there."""
        self._listening.close()

    def signal(self, number: signal.Signals) -> int:
        """Sends a signal and returns the exit status."""
        os.kill(self.process.pid, number)
        return self.process.wait(30)

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")


def student_route(task: str, base_url: str, fingerprint: str, **changes: Any) -> Route:
    """A route to a student that was certified for one shape of requests."""
    known: dict[str, Any] = {
        "task": task,
        "target": "student",
        "reason": "certified",
        "student_id": "run-1",
        "base_url": base_url,
        "fingerprints": [fingerprint],
        "max_input_chars": 1_000,
        "max_tokens": 64,
        "timeout_s": 5.0,
    }
    return route_with({**known, **changes})
