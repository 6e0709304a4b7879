"""The log of a worker: one line an event, `name=value` pairs, on standard error.

An exception is shown by its type and the places it came through, never by its message, which may
hold what a client or a teacher said.
"""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from types import TracebackType

_Info = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
_FORMAT = "time=%(asctime)s level=%(levelname)s from=%(name)s event=%(message)s"
# Said by uvicorn when we break an answer off because the teacher broke its own off.
_EXPECTED = "ASGI callable returned without completing response."


class OneLine(logging.Formatter):
    """Formats a record as one line."""

    def __init__(self) -> None:
        super().__init__(_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " ")

    def formatException(self, ei: _Info) -> str:
        kind, _, trace = ei
        places = [
            f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(trace)
        ]
        return f"error={kind.__name__ if kind else None} at={'>'.join(places)}"


def configure(level: str) -> None:
    """Sets up logging for this process. `level` is `server.log_level`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.getMessage() != _EXPECTED)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # its messages quote what came in
