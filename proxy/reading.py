"""Reads a teacher's answer on the side, while its bytes go to the client.

No fault in here reaches the client, and what is held in memory is bounded, for each answer and for
all of a worker. An answer beyond that is passed on all the same, and logged as not read.
"""

from __future__ import annotations

import logging
from threading import Lock

from proxy.exchange import Exchange
from proxy.http.beside import LARGE
from proxy.surfaces.completion import BOM, UNREAD, Completion
from proxy.surfaces.weight import PIECE, TooLarge, check_parsed

MAX_HELD = 64 * 1024 * 1024  # bytes of memory for one answer, about
_STEP = 16 * 1024  # bytes of an answer after which what is held is accounted for
_FREE = 64 * 1024  # bytes that an answer may take without asking; small ones never ask
_BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:", b":")  # of a stream of events
_BYTES_PER_TOKEN = 4  # of English text, JSON and most code

log = logging.getLogger(__name__)


class HeldBytes:
    """What all answers of a worker that are being read may hold together, in bytes.

    `lock` is for two threads: some answers are read beside the event loop.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self.lock = Lock()

    def take(self, size: int) -> bool:
        """Whether so much more may be held."""
        if size > self._free:
            return False
        self._free -= size
        return True

    def give(self, size: int) -> None:
        """Gives back what was taken."""
        self._free += size


class Reading:
    """Reads one answer. `close` it in the end."""

    __slots__ = (
        "_assembler",
        "_begun",
        "_busy",
        "_closed",
        "_exchange",
        "_failed",
        "_fed",
        "_held",
        "_pieces",
        "_taken",
        "_together",
    )

    def __init__(self, exchange: Exchange, together: HeldBytes, *, stream: bool) -> None:
        self._exchange = exchange
        self._together = together
        self._taken = 0  # of `together`
        self._held = 0  # by `_pieces`
        self._fed = 0  # since it was accounted for
        self._failed = False
        self._begun = False  # with something else than line ends
        self._closed = False
        self._busy = False  # beside the event loop
        # the bytes of a plain answer, which may also come where a stream was asked for
        self._pieces: list[bytes] | None = None if stream else []
        self._assembler = exchange.surface.assembler() if stream else None

    @property
    def done(self) -> bool:
        """Whether a stream's own end mark has come."""
        return self._assembler is not None and self._assembler.done

    def is_large(self, chunk: bytes) -> bool:
        """Whether the next bytes end a line that is to be read beside the event loop."""
        assembler = self._assembler
        if assembler is None or assembler.pending + len(chunk) <= LARGE:
            return False
        return b"\n" in chunk or b"\r" in chunk

    async def feed_beside(self, chunk: bytes) -> None:
        """The same as `feed`, beside the event loop."""
        self._busy = True
        await self._exchange.beside.run(self.feed, chunk)
        self._busy = False

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes, cut anywhere. The exchange's `answer_bytes` count them later."""
        if self._failed:
            return
        try:
            if self._assembler is not None and not self._begun:
                self._begun = bool(chunk.strip())
                if self._begun and _is_json(chunk):
                    self._assembler, self._pieces = None, []
            if self._assembler is not None:
                self._assembler.feed(chunk)
            if self._pieces is not None:
                self._pieces.append(chunk)
                self._held += len(chunk)
            self._fed += len(chunk)
            if self._fed >= _STEP:
                self._fed = 0
                self._account()
        except Exception as error:
            self._give_up(error)

    @property
    def _now_held(self) -> int:
        return self._held if self._assembler is None else self._assembler.held

    def _account(self) -> None:
        """Accounts for what is held. Raises TooLarge."""
        held = self._now_held
        if held < self._taken + _FREE:
            return
        with self._together.lock:
            more = held - self._taken
            if self._closed or held > MAX_HELD or not self._together.take(more):
                raise TooLarge
            self._taken = held

    async def finished(self) -> Completion:
        """The completion as far as it came; one that is marked as unread where that failed."""
        if max(self._taken, self._held) <= LARGE:
            return self.finish()
        self._busy = True
        completion = await self._exchange.beside.run(self._finish)
        self._busy = False
        return completion

    def finish(self) -> Completion:
        """The same at once; nothing is read of what is being read beside the event loop."""
        return Completion(error_type=UNREAD) if self._busy else self._finish()

    def _finish(self) -> Completion:
        if not self._failed:
            try:
                if self._pieces is not None:
                    return read_plain(self._exchange, b"".join(self._pieces))
                if self._assembler is not None:
                    return self._assembler.finish()
            except Exception as error:
                self._give_up(error)
        return Completion(error_type=UNREAD)

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        if isinstance(error, TooLarge):  # in a stream, a token is mostly a piece
            size = _BYTES_PER_TOKEN if self._pieces else PIECE
            self._exchange.unread_tokens = self._now_held // size
        self._held = 0
        self._pieces = self._assembler = None
        self.close()
        _log_unread(self._exchange, error)

    def close(self) -> None:
        """Gives back what it has taken of what all may hold."""
        with self._together.lock:
            self._closed = True
            self._together.give(self._taken)
            self._taken = 0


def read_plain(exchange: Exchange, raw: bytes) -> Completion:
    """A plain answer's completion; one that is marked as unread where that failed."""
    try:
        if _is_events(raw):  # a stream under another content type
            assembler = exchange.surface.assembler()
            assembler.feed(raw)
            return assembler.finish()
        check_parsed(raw)
        return exchange.surface.read_answer(raw)
    except Exception as error:
        if isinstance(error, TooLarge):
            exchange.unread_tokens = len(raw) // _BYTES_PER_TOKEN
        _log_unread(exchange, error)
        return Completion(error_type=UNREAD)


def _log_unread(exchange: Exchange, error: Exception) -> None:
    log.error("answer_unread trace=%s error=%s", exchange.trace_id, type(error).__name__)


def _is_json(begin: bytes) -> bool:
    return begin.removeprefix(BOM).lstrip()[:1] in (b"{", b"[")


def _is_events(begin: bytes) -> bool:
    if begin[:1] == b"{":  # as nearly every plain answer: nothing of it is copied
        return False
    return begin.removeprefix(BOM).lstrip()[:6].startswith(_BEGINNINGS)
