"""Addresses and secrets that `understudy serve` passes to the processes that it starts.

Passed in the environment, because arguments are visible to every user of the machine.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, dataclass

VARIABLE = "UNDERSTUDY_RUNTIME"
# tells a worker of the proxy that it has been replaced
RETIRE = signal.SIGUSR1
# seconds for its requests under way then: OpenAI's clients wait as long for an answer
RETIRE_S = 600.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """Addresses on loopback, and the keys for them."""

    config_path: str
    control_port: int  # the control plane's status API
    control_token: str  # the proxy shows it there; at the proxy, the key of our command line
    litellm_url: str | None = None  # http://127.0.0.1:PORT/v1; None: no child is needed
    litellm_key: str | None = None
    worker: int = 0  # which of the proxy's workers this is, from 0
    workers: int = 1  # how many there are
    roster_fd: int | None = None  # the page that they share (store.process.workers), inherited
    control_fd: int | None = None  # the control plane's page (store.process.control_page)

    def environment(self) -> dict[str, str]:
        """The current environment with this runtime in it."""
        return {**os.environ, VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def current(cls) -> Runtime:
        """The runtime that this process was started with. Raises KeyError outside of `serve`."""
        return cls(**json.loads(os.environ[VARIABLE]))
