"""Work on large requests and answers, in a thread beside the event loop.

One thread for each process: Python runs one at a time, so several would only delay the loop more.
What one call into C does to a text, such as parsing it, holds the loop up all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

LARGE = 256 * 1024  # bytes of JSON from which on work on it is done here

P = ParamSpec("P")
T = TypeVar("T")


class Beside:
    """The thread of one process."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "large")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the work gives, or raises. It goes on when whoever waits for it is cancelled."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(*args, **kwargs))
