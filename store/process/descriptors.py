"""The limit of open files, which each connection counts towards."""

from __future__ import annotations

import resource

# what serve needs, with a student, a run and a few clients: a worker has some 20 files open without
# a connection and keeps 64 for its own, the control plane some 40
MIN_DESCRIPTORS = 256
_MAX_DESCRIPTORS = 1 << 20  # where the hard limit is infinite


def raise_descriptor_limit() -> int:
    """Raises this process's limit of open files as far as it may. Returns the limit.

    Processes that it starts later have the same limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS allows less than its hard limit says
        return soft
    return wanted
