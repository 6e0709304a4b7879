"""Accepts connections from a listening socket that several workers share.

The kernel wakes them all, and the first one could empty the queue: asyncio's own loop does, and
then one worker has all connections. So a worker that has more connections than another leaves a new
one to that worker for a moment. If it is still there after `PATIENCE_S`, the other one is busy, and
waiting would cost more than it gains. There is one queue (SO_REUSEPORT would divide it), so the
other workers take the connections of a worker that was killed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from itertools import islice

from proxy.http.errors import too_many_connections
from proxy.http.protocol import Protocol
from store.process.workers import Roster

PATIENCE_S = 0.005
_LOOK_AGAIN_S = 0.0005
_FULL_WAIT_S = 0.5  # to wait when no descriptor is left
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = logging.getLogger(__name__)

_SPARE_DESCRIPTORS = 64  # for the journal, logs and other files
_READ_BEFORE_CLOSING = 1 << 16
_COMPLAIN_EVERY_S = 60.0
_LOOKED_AT = 64  # idle connections, for one that can be closed

_Opened = tuple[asyncio.Transport, Protocol]


def connections_within(descriptors: int, in_flight: int) -> int:
    """How many clients' connections leave descriptors for upstreams, the journal and files.

    Each request under way (at most `in_flight`) may need a connection to an upstream; where that is
    more than half of the descriptors, half of them.
    """
    return max(1, descriptors - _SPARE_DESCRIPTORS - min(in_flight, descriptors // 2))


class Acceptor:
    """Accepts for one worker. `connections`: its open connections."""

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], Protocol],
        connections: Collection[object],
        *,
        roster: Roster | None = None,
        worker: int = 0,
        max_connections: float = math.inf,
        refused: Callable[[int], None] | None = None,
    ) -> None:
        """`max_connections`: for one more, the connection that has been idle for longest is closed.

        Where none is idle, the new one is answered with 503 and closed at once.
        """
        self._max_connections = max_connections
        self._refused = refused
        self._complained_at = -math.inf
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._protocol = protocol
        self._connections = connections
        self._roster = roster
        self._worker = worker
        self._alone = roster is None or roster.workers == 1
        self._opening: dict[asyncio.Task[_Opened], Protocol] = {}
        self._idle: dict[Protocol, None] = {}  # who waits for a further request, longest first
        self._leaving: set[Protocol] = set()  # of those, whose connection is closing
        self._declined_since: float | None = None  # a connection is left to another
        self._again: asyncio.TimerHandle | None = None

    @property
    def count(self) -> int:
        """The connections of this worker, including those that are being opened."""
        opening = (protocol not in self._connections for protocol in self._opening.values())
        return len(self._connections) + sum(opening)

    def start(self) -> None:
        """Begins to accept."""
        self._listening.setblocking(False)
        self._listen()

    async def stop(self) -> None:
        """Takes the connections in the queue, as no other worker may come, and accepts no more."""
        self._loop.remove_reader(self._listening)
        if self._again is not None:
            self._again.cancel()
        while self._accept():
            pass
        self._listening.close()
        if self._opening:
            await asyncio.wait(self._opening)

    def _listen(self) -> None:
        self._again = None
        self._loop.add_reader(self._listening, self._readable)

    def _readable(self) -> None:
        """Called when a connection waits; again at once while there are more."""
        if self._alone or self._is_ours():
            self._accept()
            self._declined_since = None

    def _is_ours(self) -> bool:
        """Whether to take the connection; if not, it is looked at again a moment later."""
        assert self._roster is not None
        if self.count <= self._roster.fewest(but=self._worker):
            return True
        now = self._loop.time()
        if self._declined_since is None or now - self._declined_since > 2 * PATIENCE_S:
            self._declined_since = now  # another connection than before
        elif now - self._declined_since >= PATIENCE_S:
            return True
        self._pause(_LOOK_AGAIN_S)
        return False

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening)
        self._again = self._loop.call_later(seconds, self._listen)

    def _accept(self) -> bool:
        """Whether there was a connection."""
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError):
            return False  # another worker was faster
        except ConnectionAbortedError:
            return True
        except OSError as error:
            if error.errno not in _FULL:
                raise
            if not self._leaving and not self._make_room():
                log.error("no connection can be accepted: %s", error.strerror)
                self._pause(_FULL_WAIT_S)
            return False
        connection.setblocking(False)
        full = self.count - len(self._leaving) >= self._max_connections
        if full and not self._make_room():
            self._turn_away(connection)
            return True
        protocol = self._new_protocol()
        opening = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: protocol, connection)
        )
        self._opening[opening] = protocol
        opening.add_done_callback(self._opened)
        self._share_count()
        return True

    def _make_room(self) -> bool:
        """Closes the connection that has been idle for longest; False if none is."""
        for connection in list(islice(self._idle, _LOOKED_AT)):
            if connection.give_way():
                self._leaving.add(connection)
                return True
        return False

    def _turn_away(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.send(too_many_connections().on_the_wire())
            connection.shutdown(socket.SHUT_WR)
            connection.recv(_READ_BEFORE_CLOSING)  # what is unread would reset the connection
        if self._refused is not None:
            self._refused(503)
        if self._loop.time() - self._complained_at > _COMPLAIN_EVERY_S:
            self._complained_at = self._loop.time()
            log.error("too many connections: at %d, more are refused", self.count)

    def _opened(self, opening: asyncio.Task[_Opened]) -> None:
        self._opening.pop(opening, None)
        error = None if opening.cancelled() else opening.exception()
        if error is not None and not isinstance(error, OSError):  # OSError: the client is gone
            log.error("a connection cannot be opened", exc_info=error)

    def _new_protocol(self) -> Protocol:
        protocol = self._protocol()
        protocol.idle = self._idle
        protocol.on_gone = partial(self._gone, protocol)
        return protocol

    def _gone(self, connection: Protocol) -> None:
        self._leaving.discard(connection)
        if not self._alone:
            self._share_count()

    def _share_count(self) -> None:
        if self._roster is not None:
            self._roster.connected(self._worker, self.count)
