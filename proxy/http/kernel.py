"""What the kernel knows of a client's connection before the event loop does."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios


def has_unread(transport: asyncio.BaseTransport) -> bool:
    """Whether the kernel has bytes of this client that were not read yet."""
    try:
        fd = transport.get_extra_info("socket").fileno()
        waiting = fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0")
    except (OSError, ValueError):  # closed by now; ValueError comes from Python
        return False
    return bool(struct.unpack("i", waiting)[0])


def was_reset(transport: asyncio.BaseTransport) -> bool:
    """Whether the client has reset a connection that nothing is read from, which would tell."""
    try:
        plain = transport.get_extra_info("socket")
        return bool(plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0)
    except OSError:
        return True
