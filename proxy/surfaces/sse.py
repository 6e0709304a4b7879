"""Server-sent events: reads them while they go by, however they are cut, and writes whole ones."""

from __future__ import annotations

import orjson

from proxy.surfaces.completion import BOM
from proxy.surfaces.weight import PIECE, check_parsed
from store.jsontext import JsonObject

# bytes of a line from which its pieces are joined only when they have doubled it: in linear time
_LONG_LINE = 1 << 16
_MAX_MISREAD = 1_000  # events, of which one is enough for an answer that is not learned from


class Unreadable(Exception):
    """Too many events of a stream were not understood to read on."""


class EventReader:
    """Assembles the lines of a stream, and passes each event's data to `take_event`.

    Accepts every line ending of the SSE specification, comments, events of several data lines, and
    streams that end anywhere. `name` is that of the event being taken, empty where it has none;
    APIs that name events mostly repeat the name in the data.
    """

    __slots__ = (
        "_at_start",
        "_event",
        "_event_bytes",
        "_misread",
        "_more",
        "_more_bytes",
        "_rest",
        "done",
        "kept",
        "name",
    )

    def __init__(self) -> None:
        self.done = False  # from the last byte of the line on that marks the stream's end
        self.name = ""
        self._event: list[bytes] = []  # data lines of the present event
        self._rest = b""  # of a line that has not ended
        self._more: list[bytes] = []  # what follows `_rest` in a long line
        self._more_bytes = 0
        self._at_start = True  # where a byte order mark may be
        self._event_bytes = 0  # of its lines
        self._misread = 0
        self.kept = 0  # bytes of memory that events have left behind, about

    @property
    def pending(self) -> int:
        """Bytes of the event that has not ended."""
        return len(self._rest) + self._more_bytes + self._event_bytes

    @property
    def held(self) -> int:
        """Bytes of memory that it holds, about."""
        return self.pending + self._kept()

    def _kept(self) -> int:
        """Bytes of memory that events have left behind, about."""
        return self.kept

    def take_event(self, raw: bytes) -> None:
        """Takes an event's data, and adds to `kept` what it keeps of it.

        Must not raise; `misread` counts what it does not understand.
        """
        raise NotImplementedError

    def misread(self) -> None:
        """Counts an event that was not understood. Raises Unreadable when they are too many."""
        self._misread += 1
        if self._misread > _MAX_MISREAD:
            raise Unreadable

    def is_end(self, line: bytes) -> bool:
        """Whether this line, or beginning of a line, marks the end of the stream."""
        raise NotImplementedError

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes.

        Raises TooLarge on an event that would take too much memory, Unreadable after many that were
        not understood.
        """
        if self._at_start:
            chunk = self._without_bom(chunk)
        if len(self._rest) >= _LONG_LINE and self._is_more_of_the_line(chunk):
            return
        lines = (self._rest + chunk).splitlines(keepends=True)
        # a final \r may be the first half of \r\n
        self._rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        for line in lines:
            self._take_line(line.rstrip(b"\r\n"))
        # clients that look for the end mark do not wait for its line to end
        if self._rest and not self.done and self.is_end(self._rest):
            self.done = True

    def _is_more_of_the_line(self, chunk: bytes) -> bool:
        """Puts a chunk aside while it only makes a long line longer; else joins what was put aside.

        An end mark in such a line is seen when the line ends.
        """
        if b"\n" not in chunk and b"\r" not in chunk and self._rest[-1:] != b"\r":
            self._more.append(chunk)
            self._more_bytes += len(chunk)
            if self._more_bytes < len(self._rest):
                return True
            self._join()
            return True
        self._join()
        return False

    def _join(self) -> None:
        if self._more:
            self._rest = b"".join([self._rest, *self._more])
            self._more, self._more_bytes = [], 0

    def _without_bom(self, chunk: bytes) -> bytes:
        """The first bytes without a byte order mark, which may come in pieces."""
        begun = self._rest + chunk
        if len(begun) >= len(BOM) or not BOM.startswith(begun):
            self._at_start = False
            self._rest = b""
            return begun.removeprefix(BOM)
        return chunk

    def flush(self) -> None:
        """Takes the present event, though it has not ended."""
        self._join()
        self._take_line(self._rest.rstrip(b"\r\n"))
        self._take_line(b"")
        self._rest = b""

    def _take_line(self, line: bytes) -> None:
        if not line:
            if self._event:
                event = self._event
                self._event, self._event_bytes = [], 0
                if len(event) > 1:
                    event = [b"\n".join(event)]
                    check_parsed(event[0])
                self.take_event(event[0])
            self.name = ""
            return
        long = len(line) > _LONG_LINE
        if long:
            check_parsed(line)
        if line.startswith(b"data:"):
            if long or self._event:  # which an event of one short line is not worth counting
                self._event_bytes += len(line) + PIECE
            self._event.append(line[5:])
        elif line.startswith(b"event:"):
            self.name = line[6:].strip().decode("utf-8", "replace")
        if not self.done and self.is_end(line):
            self.done = True


def event(payload: JsonObject) -> bytes:
    """An event with this payload, named by the payload's `type`."""
    return b"event: %b\ndata: %b\n\n" % (payload["type"].encode("ascii"), orjson.dumps(payload))
