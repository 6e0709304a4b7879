"""The connections to one origin: made when needed, kept for reuse."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable

from proxy.upstream.connection import Connection
from proxy.upstream.errors import Slow, Unreachable
from proxy.upstream.request import Origin

_ADDRESSES_S = 10.0  # how long a name's addresses are cached
_NEXT_ADDRESS_S = 0.25  # RFC 8305, section 5: try the next address beside one that is slow
_TLS_SHUTDOWN_S = 2.0
_SOON_S = 1.0  # an idle connection that its other end closes within it was closed without a word

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]


class Pool:
    """Connections to one origin. The one used last is used next, so the others can expire."""

    def __init__(
        self,
        origin: Origin,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        idle_s: float,
        idle: int,
        trust: Callable[[], ssl.SSLContext],
    ) -> None:
        """`idle_s`, `idle`: how long connections wait for use, and how many."""
        self._origin = origin
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._idle_s = idle_s
        self._max_idle = idle
        self._trust = trust
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []  # the longest unused first
        self._sweeper: asyncio.TimerHandle | None = None
        self._addresses: list[AddressInfo] = []
        self._looked_up = 0.0
        self._closed = False
        self._keeps_open = True  # no idle connection was closed soon after its answer

    def take(self) -> Connection | None:
        """An idle connection that is still open, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.stale(keeps_open=self._keeps_open):
                return connection
            self._closed_by_its_end(connection)
            connection.close()
        return None

    async def connect(self) -> Connection:
        """A new connection. Raises Unreachable or Slow."""
        made: list[Connection] = []

        def protocol() -> Connection:
            made.append(
                Connection(
                    self._loop, self._read_timeout_s, on_idle=self._keep, on_lost=self._forget
                )
            )
            return made[-1]

        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._connect(protocol)
        except OSError as error:
            self._addresses = []
            if isinstance(error, TimeoutError) and error.errno is None:  # ours
                raise Slow from None
            raise Unreachable from None
        except UnicodeError:  # a name that no server can have
            raise Unreachable from None
        return made[-1]

    async def _connect(self, protocol: Callable[[], Connection]) -> None:
        origin = self._origin
        secure = origin.scheme == "https"
        connect: Callable[..., Awaitable[object]] = functools.partial(
            self._loop.create_connection,
            protocol,
            ssl=self._trust() if secure else None,
            server_hostname=origin.host if secure else None,
            ssl_handshake_timeout=self._connect_timeout_s if secure else None,
            ssl_shutdown_timeout=_TLS_SHUTDOWN_S if secure else None,
        )
        if origin.address is not None:
            await connect(origin.host, origin.port)
            return
        from aiohappyeyeballs import start_connection  # noqa: PLC0415  (only names need it)

        plain = await start_connection(
            await self._resolve(),
            happy_eyeballs_delay=_NEXT_ADDRESS_S,
            interleave=1,
            loop=self._loop,
        )
        try:
            await connect(sock=plain)
        except BaseException:
            plain.close()
            raise

    async def _resolve(self) -> list[AddressInfo]:
        now = self._loop.time()
        if not self._addresses or now - self._looked_up > _ADDRESSES_S:
            self._addresses = await self._loop.getaddrinfo(  # type: ignore[assignment]
                self._origin.host,
                self._origin.port,
                type=socket.SOCK_STREAM,
                flags=socket.AI_ADDRCONFIG,
            )
            self._looked_up = now
        return self._addresses

    def _keep(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= self._max_idle:
            connection.close()
            return
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._idle_s, self._sweep)

    def _forget(self, connection: Connection) -> None:
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)
            self._closed_by_its_end(connection)

    def _closed_by_its_end(self, connection: Connection) -> None:
        if connection.idle_s < _SOON_S:
            self._keeps_open = False

    def close(self) -> None:
        """Closes idle connections; one in use is closed when its answer has ended."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._loop.time()
        fresh = next(
            (n for n, one in enumerate(self._idle) if one.heard + self._idle_s > now),
            len(self._idle),
        )
        for connection in self._idle[:fresh]:
            connection.close()
        del self._idle[:fresh]
        if self._idle:
            oldest = self._idle[0].heard + self._idle_s
            self._sweeper = self._loop.call_later(oldest - now, self._sweep)
