"""The log of every process that `understudy serve` starts: one line an event, on standard error.

    time=2026-11-30T20:22:01+0000 level=INFO from=proxy.worker event=serving worker=0 port=8400
    time=2026-11-30T20:22:09+0000 level=INFO from=distill.collect event="a sentence, in quotes"

An exception is shown by its type and the places it came through. Its message is shown only if it is
one of ours (store.errors): another one may quote what a client or a teacher sent.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType

from store.errors import UnderstudyError

_Info = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
_FORMAT = "time=%(asctime)s level=%(levelname)s from=%(name)s event=%(event)s"
_EVENT = re.compile(r"\w+(?: \w+=.*)?", re.DOTALL)  # a word, and `name=value` pairs
# uvicorn says this when we abort a client's stream because the teacher's stream broke off
_EXPECTED = "ASGI callable returned without completing response."
_CHATTY = ("asyncio", "httpx", "instructor", "openai")  # a line per tick or request


class OneLine(logging.Formatter):
    """Formats a record as one line of `name=value` pairs."""

    def __init__(self) -> None:
        super().__init__(_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        record.event = (
            message if _EVENT.fullmatch(message) else json.dumps(message, ensure_ascii=False)
        )
        return super().format(record).replace("\n", " ")

    def formatException(self, ei: _Info) -> str:
        kind, error, trace = ei
        places = [
            f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(trace)
        ]
        line = f"error={kind.__name__ if kind else None} at={'>'.join(places)}"
        if isinstance(error, UnderstudyError):
            line += f" message={json.dumps(str(error), ensure_ascii=False)}"
        return line


def configure_logging(level: str) -> None:
    """Sets up the log of this process. `level`: `server.log_level`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.getMessage() != _EXPECTED)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # its messages quote received bytes
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
