"""`understudy serve` as a user starts it: a real process with all its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import openai
import psutil
import yaml

from cli.serve.data_folder import ServeNote, running_server
from tests.helpers.serving import CLIENT_KEY, wait_until


class Served:
    """A running `understudy serve` on a port of its own choice; leaving stops it."""

    def __init__(self, folder: Path, config: dict[str, Any], **env: str) -> None:
        self.data_dir = folder / "data"
        self.config_file = folder / "config.yaml"
        self._output = folder / "output"
        self._env = env
        self.config_file.write_text(
            yaml.safe_dump({"data_dir": str(self.data_dir), "server": {"port": 0}, **config})
        )

    def __enter__(self) -> Self:
        with self._output.open("wb") as output:
            self.process = psutil.Popen(
                [sys.executable, "-P", "-m", "cli", "serve", "--config", str(self.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self._env},
            )
        self.url = str(wait_until(self._running, within_s=60).url)
        return self

    def _running(self) -> ServeNote | None:
        found = running_server(self.data_dir)
        return found if found and found.pid == self.process.pid else None

    def __exit__(self, *_: object) -> None:
        if self.process.is_running():
            self.stop()
        self.process.wait(60)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def child(self, module: str) -> psutil.Process:
        """The child that runs this module, waited for while it is being started."""

        def find() -> psutil.Process | None:
            for child in self.process.children():
                try:
                    if module in child.cmdline():
                        return child
                except (psutil.NoSuchProcess, psutil.ZombieProcess):
                    continue
            return None

        found = wait_until(find, within_s=60)
        assert isinstance(found, psutil.Process)
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> list[psutil.Process]:
        """Sends the signal, and gives those of all its processes that are there much later."""
        family = [self.process, *self.process.children(recursive=True)]
        self.process.send_signal(number)
        _, left = psutil.wait_procs(family, timeout=60)
        return list(left)

    def client(self) -> openai.OpenAI:
        """The OpenAI SDK pointed at the proxy; it does not retry, so that every error shows."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=150
        )
