"""Where `understudy serve` listens: the socket that workers share, and ports for children."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import sys
import time
from collections.abc import Iterator

from store.errors import ProductError
from store.settings.config import ServerSettings

BACKLOG = 2048
LISTEN_ADVICE: dict[int | None, str] = {
    errno.EADDRINUSE: "the port is in use: stop what uses it, or set server.port to another",
    errno.EACCES: "not allowed: choose a server.port above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address: correct server.host",
}


def listen(server: ServerSettings) -> socket.socket:
    """The listening socket; its descriptor may be inherited. Raises ProductError."""
    where = f"{server.host}:{server.port}"
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        # errors of name resolution have numbers of their own, which may collide
        number = None if isinstance(error, socket.gaierror) else error.errno
        why = LISTEN_ADVICE.get(number, f"{error.strerror}: correct server.host and server.port")
        raise ProductError(f"cannot listen on {where}: {why}") from None
    listener.set_inheritable(True)
    return listener


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A free port on loopback for a child that will bind it by number.

    On Linux a socket that is bound and does not listen keeps the port from being given to
    anybody's outgoing connection, and lets a child bind it all the same.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port of loopback."""
    with socket.socket() as connection:
        connection.settimeout(1)
        # a socket that happens to be given this very port connects to itself
        return (
            connection.connect_ex(("127.0.0.1", port)) == 0 and connection.getsockname()[1] != port
        )


def wait_for_answer(listener: socket.socket, timeout_s: float) -> bool:
    """Waits for any answer to /health; False after the timeout."""
    deadline = time.monotonic() + timeout_s
    address = _reachable(listener)
    with contextlib.suppress(OSError), socket.create_connection(address, timeout_s) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        readable, _, _ = select.select([connection], [], [], max(0.0, deadline - time.monotonic()))
        return bool(readable) and bool(connection.recv(1))
    return False


def url_of(listener: socket.socket) -> str:
    """Where clients reach it, without /v1."""
    host, port = _reachable(listener)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _reachable(listener: socket.socket) -> tuple[str, int]:
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104
