"""One worker of the data plane.

    UNDERSTUDY_RUNTIME=… python -m proxy.worker --fd N

serves on the listening socket that it inherits as file descriptor N, possibly shared with other
workers. The runtime (store.process.runtime) and its config file have everything else. It drains on
SIGTERM and SIGINT: no new connections, and requests under way have `server.drain_s` to finish. On
SIGUSR1, when a successor has taken over, they have `RETIRE_S`. It also drains when its parent
process is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from proxy.app import build
from proxy.http.accept import Acceptor, connections_within
from proxy.http.asgi import Handler
from proxy.http.protocol import LINGER_S, PATIENT_LINGER_S, Protocol
from store.errors import ConfigError
from store.files.accepted import read_accepted
from store.files.journal import JournalHealth
from store.logs import configure_logging
from store.process.descriptors import raise_descriptor_limit
from store.process.runtime import RETIRE, RETIRE_S, Runtime
from store.process.workers import Roster
from store.settings.config import ServerSettings

_KEEP_ALIVE_S = 75  # longer than clients keep idle connections, so that clients close first
_CUT_S = 1.0  # how long cancelled requests may take to end
_DRAIN_TICK_S = 0.05
_TICKS_PER_SECOND = 10

log = logging.getLogger(__name__)


class Worker(uvicorn.Server):
    """A uvicorn server that shares its socket, drains to the end, and stops with its parent."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain_s: float,
        journal_health: Callable[[], JournalHealth] | None = None,
        routes_digest: Callable[[], int] | None = None,
        refused: Callable[[int], None] | None = None,
        roster: Roster | None = None,
        number: int = 0,
        settings: ServerSettings | None = None,
        max_connections: float = math.inf,
    ) -> None:
        """`journal_health`, `routes_digest`: what the other workers are told about this one, if
        there is a roster.

        `refused`: told the status of what no application sees: bytes that are no request, and
        connections beyond the limit. `number`: of this worker, its row in the roster.
        """
        super().__init__(config)
        self._journal_health = journal_health
        self._routes_digest = routes_digest
        self._refused = refused
        self._parent = os.getppid()
        self._drain_s = drain_s
        self._roster = roster
        self._number = number
        self._settings = ServerSettings() if settings is None else settings
        self._max_connections = max_connections
        self._retired = False
        self._ends_at: float | None = None  # loop time when the remaining requests are cancelled
        self._acceptor: Acceptor | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, then accepts from the one socket."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        assert sockets is not None
        self._acceptor = Acceptor(
            sockets[0],
            self._protocol,
            self.server_state.connections,
            roster=self._roster,
            worker=self._number,
            max_connections=self._max_connections,
            refused=self._refused,
        )
        if self._roster is not None:
            self.lifespan.state |= {"roster": self._roster, "worker": self._number}
            self._share_state()
            self._roster.beat(self._number, 0)
        self._acceptor.start()
        self.started = True

    def _protocol(self) -> Protocol:
        protocol = Protocol(self.config, self.server_state, self.lifespan.state)
        protocol.head_timeout_s = self._settings.head_timeout_s
        protocol.on_refused = self._refused
        protocol.body_bytes_per_s = self._settings.body_kb_per_s * 1024
        return protocol

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if os.getppid() != self._parent:
            self.should_exit = True
        if self._roster is not None and self._acceptor is not None and not self.should_exit:
            self._roster.beat(self._number, self._acceptor.count)
        if counter % _TICKS_PER_SECOND == 0:
            self._check_connections()
            self._share_state()
        return await super().on_tick(counter)

    def _check_connections(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in self._connections():
            connection.look_after(now)

    def _connections(self) -> list[Protocol]:
        return [c for c in self.server_state.connections if isinstance(c, Protocol)]

    def _share_state(self) -> None:
        """Tells the other workers how this one's journal is, and which routes it has."""
        if self._roster is not None and self._routes_digest is not None:
            self._roster.routes(self._number, self._routes_digest())
        if self._roster is not None and self._journal_health is not None:
            health = self._journal_health()
            self._roster.journal(
                self._number, ok=health.ok, backlog=health.backlog, lost=health.lost
            )

    # ---- the end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops accepting, lets requests finish within the time limit, ends the application.

        The journal has the same time: what a full disk keeps in memory is lost with the worker.

        Connections in the queue and further requests on open connections are still answered; see
        proxy.http.protocol.
        """
        loop = asyncio.get_running_loop()
        if self._acceptor is not None:
            await self._acceptor.stop()
        if self._roster is not None:
            self._roster.leave(self._number)
        for connection in self._connections():
            connection.shutdown()
        if self._ends_at is None:  # without a signal: the parent is gone
            self._ends_at = loop.time() + self._drain_s
        while self.server_state.connections or self.server_state.tasks or self._unwritten:
            now = loop.time()
            if self.force_exit or now >= self._ends_at:
                await self._cut_off()
                break
            for connection in self._connections():
                connection.linger(now, PATIENT_LINGER_S if self._alone else LINGER_S)
            await asyncio.sleep(_DRAIN_TICK_S)
        await self.lifespan.shutdown()

    @property
    def _alone(self) -> bool:
        """Whether this worker ends and the server goes on: then nobody waits for its end."""
        others = self._roster is not None and self._roster.fewest(but=self._number) < math.inf
        return self._retired or others

    @property
    def _unwritten(self) -> bool:
        """Whether lines of the journal are in memory alone: on a full disk, they would be lost."""
        return self._journal_health is not None and self._journal_health().backlog > 0

    async def _cut_off(self) -> None:
        tasks = self.server_state.tasks
        if tasks:
            log.warning("cut_off requests=%d", len(tasks))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_CUT_S)
        for connection in self._connections():
            connection.transport.abort()

    def _end_in(self, seconds: float) -> None:
        self._ends_at = asyncio.get_running_loop().time() + seconds

    def _stop(self, number: int) -> None:
        self._end_in(self._drain_s)
        self._retired = False
        self.handle_exit(number, None)

    def _retire(self) -> None:
        self._end_in(RETIRE_S)
        self._retired = True
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stops on SIGTERM and SIGINT; unlike uvicorn's own it does not raise them again."""
        if threading.current_thread() is threading.main_thread():  # other threads get no signals
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop, number)
            loop.add_signal_handler(RETIRE, self._retire)
        yield


def worker(
    app: Handler,
    *,
    journal_health: Callable[[], JournalHealth] | None = None,
    routes_digest: Callable[[], int] | None = None,
    refused: Callable[[int], None] | None = None,
    drain_s: float = ServerSettings.model_fields["drain_s"].default,
    roster: Roster | None = None,
    number: int = 0,
    settings: ServerSettings | None = None,
    max_connections: float = math.inf,
) -> Worker:
    """A server for the application, tuned to relay. The rest: see Worker."""
    return Worker(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=Protocol,
            ws="none",
            lifespan="on",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        ),
        drain_s=drain_s,
        journal_health=journal_health,
        routes_digest=routes_digest,
        refused=refused,
        roster=roster,
        number=number,
        settings=settings,
        max_connections=max_connections,
    )


def _freeze_memory() -> None:
    """Exempts everything loaded so far from garbage collection, and collects less often.

    Hardly anything of a request outlives its references.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def main() -> None:
    """Serves until a signal stops it."""
    parser = argparse.ArgumentParser(prog="proxy.worker", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    arguments = parser.parse_args()
    runtime = Runtime.current()
    try:
        config = read_accepted(Path(runtime.config_path))
        configure_logging(config.server.log_level)
        app = build(config, runtime)
    except ConfigError as error:
        sys.exit(str(error))
    listening = socket.socket(fileno=arguments.fd)
    roster = None
    if runtime.roster_fd is not None:
        roster = Roster(runtime.roster_fd, runtime.workers)
    log.info("serving worker=%d port=%s", runtime.worker, listening.getsockname()[1])
    server = worker(
        app,
        journal_health=lambda: app.journal_health,
        routes_digest=lambda: app.routes_digest,
        refused=app.refused,
        drain_s=config.server.drain_s,
        roster=roster,
        number=runtime.worker,
        settings=config.server,
        max_connections=connections_within(
            raise_descriptor_limit(), config.server.limits.in_flight
        ),
    )
    _freeze_memory()
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
