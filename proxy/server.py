"""One worker of the data plane.

    UNDERSTUDY_RUNTIME=… python -m proxy.server --fd N

serves on the listening socket that it inherits as file descriptor N. Everything else it needs
stands in the runtime (store.runtime) and in the config file which that names. SIGTERM and SIGINT
drain: no new connections, and requests under way may finish. It does the same when the process
that started it is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import uvicorn

from proxy.app import App, build
from proxy.logs import configure
from store.config import load_config
from store.errors import ConfigError
from store.runtime import Runtime

DRAIN_S = 30
_KEEP_ALIVE_S = 75  # longer than clients keep idle connections, so that they are the ones to close
_BACKLOG = 2048

log = logging.getLogger(__name__)


class Worker(uvicorn.Server):
    """A uvicorn server that also stops with its parent, and that ends with 0 after draining."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._parent = os.getppid()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if os.getppid() != self._parent:
            self.should_exit = True
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stops on SIGTERM and SIGINT, and keeps them to itself, unlike uvicorn's own."""
        if threading.current_thread() is threading.main_thread():  # others get no signals
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def worker(app: App) -> Worker:
    """A server for the application, tuned to relay."""
    return Worker(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
    )


def main() -> None:
    """Serves until it is told to stop."""
    parser = argparse.ArgumentParser(prog="proxy.server", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    arguments = parser.parse_args()
    runtime = Runtime.current()
    try:
        config = load_config(Path(runtime.config_path))
        configure(config.server.log_level)
        app = build(config, runtime)
    except ConfigError as error:
        sys.exit(str(error))
    listening = socket.socket(fileno=arguments.fd)
    log.info("serving worker=%d port=%s", runtime.worker, listening.getsockname()[1])
    worker(app).run(sockets=[listening])


if __name__ == "__main__":
    main()
