"""Server-sent events, read while they go by and written whole. Cut anywhere, of any line ending."""

from __future__ import annotations

from typing import Any

import orjson


class EventReader:
    """Puts the lines of a stream together, and gives each event's data to `take_event`.

    Takes every line ending of the SSE specification, comments, events of several data lines, and
    streams that stop anywhere. An event's name is left to `is_end`: those who send one say the same
    in the data.
    """

    __slots__ = ("_event", "_rest", "done")

    def __init__(self) -> None:
        self.done = False  # from the last byte of the line on that is the stream's end mark
        self._event: list[bytes] = []  # data lines of the event that is being read
        self._rest = b""  # of a line whose end has not come

    def take_event(self, raw: bytes) -> None:
        """Takes an event's data. Must not raise."""
        raise NotImplementedError

    def is_end(self, line: bytes) -> bool:
        """Whether this line, or this beginning of one, is the stream's end mark."""
        raise NotImplementedError

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        lines = (self._rest + chunk).splitlines(keepends=True)
        # a final \r may be the first half of \r\n
        self._rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        for line in lines:
            self._take_line(line.rstrip(b"\r\n"))
        # a client that looks for the end mark does not wait for its line to end
        if self._rest and not self.done and self.is_end(self._rest):
            self.done = True

    def flush(self) -> None:
        """Takes what has come of an event that is not whole."""
        self._take_line(self._rest.rstrip(b"\r\n"))
        self._take_line(b"")
        self._rest = b""

    def _take_line(self, line: bytes) -> None:
        if not line:
            if self._event:
                event = self._event
                self._event = []
                self.take_event(event[0] if len(event) == 1 else b"\n".join(event))
            return
        if line.startswith(b"data:"):
            self._event.append(line[5:])
        if not self.done and self.is_end(line):
            self.done = True


def event(payload: dict[str, Any]) -> bytes:
    """An event that carries the payload, and its `type` as its name."""
    return b"event: %b\ndata: %b\n\n" % (payload["type"].encode("ascii"), orjson.dumps(payload))
