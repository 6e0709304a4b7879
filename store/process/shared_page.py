"""A page of memory that several processes share, as an inherited descriptor."""

from __future__ import annotations

import os
import tempfile


def create_page(size: int) -> int:
    """The inheritable descriptor of `size` zero bytes, which end with the last process that has it.

    On Linux no file lies behind it, so that a full disk hinders nobody. Elsewhere a temporary one
    does: it is written, because touching a hole of a file on a full disk ends a process. Raises
    OSError then.
    """
    if hasattr(os, "memfd_create"):
        fd: int = os.memfd_create("understudy", 0)
        os.ftruncate(fd, size)
    else:
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(bytes(size))
            fd = os.dup(file.fileno())
    os.set_inheritable(fd, True)
    return fd
