"""A wall clock that a campaign can set, for every Python process that it starts.

Python imports this module by itself when its folder is on PYTHONPATH. The clock is Python's own,
shifted by the number of seconds in the file that UNDERSTUDY_CAMPAIGN_CLOCK names; monotonic clocks
are left alone, as when somebody sets the time of a machine.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

_file = os.environ.get("UNDERSTUDY_CAMPAIGN_CLOCK")
if _file:
    with Path(_file).open("r+b") as opened:
        _shift = memoryview(mmap.mmap(opened.fileno(), 8)).cast("d")
    _real, _real_ns = time.time, time.time_ns

    def _time() -> float:
        return _real() + _shift[0]

    def _time_ns() -> int:
        return _real_ns() + int(_shift[0] * 1e9)

    time.time, time.time_ns = _time, _time_ns
