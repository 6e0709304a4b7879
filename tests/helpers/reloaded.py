"""`understudy serve` whose config changes while it runs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx
import psutil
import yaml

from cli.commands.reload import reload
from tests.helpers.served import Served

PROXY, CONTROL_PLANE = "proxy.worker", "distill.control"


class Reloaded(Served):
    """A server whose config changes."""

    def change(self, **blocks: Any) -> None:
        """Writes blocks of the config anew; None takes one out."""
        raw = yaml.safe_load(self.config_file.read_text())
        for name, block in blocks.items():
            raw[name] = {**raw.get(name, {}), **block} if isinstance(block, dict) else block
        self.config_file.write_text(yaml.safe_dump({k: v for k, v in raw.items() if v is not None}))

    def reload(self) -> str:
        """What `understudy reload` says. Raises ConfigError when the server refuses the config."""
        return reload(self.config_file)

    def run_reload(self) -> subprocess.CompletedProcess[str]:
        """`understudy reload` as a process of its own, which takes a while to start."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "cli", "reload", "--config", str(self.config_file)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def pids(self, module: str) -> set[int]:
        """The children that run this module now."""
        found = set()
        for child in self.process.children():
            try:
                if module in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    found.add(child.pid)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found

    def limit_mb(self) -> float:
        """server.body_limit_mb, as clients find it to be."""
        for limit in (1, 2, 3, 4):
            content = b" " * (limit * 1024 * 1024 - 100)
            url = f"{self.url}/v1/chat/completions"
            if httpx.post(url, content=content, timeout=30).status_code == 413:
                return limit - 1
        return 4
