"""Relays a teacher's answer byte for byte; its trace is in the journal before the last byte."""

from __future__ import annotations

import logging

from proxy.exchange import Exchange
from proxy.http.asgi import Headers, Send, respond, start
from proxy.http.headers import from_upstream, without_length
from proxy.surfaces.completion import BOM, UNREAD, Completion
from proxy.upstream.errors import UpstreamError
from proxy.upstream.response import MAX_BODY_BYTES, Response
from store.records import Outcome

_EVENTS = "text/event-stream"
_JSON = "application/json"
_BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:", b":")  # of a stream of events
_GATHER_S = 0.25  # how long the rest of a plain answer is waited for

log = logging.getLogger(__name__)


def is_stream(response: Response, *, asked: bool) -> bool:
    """Whether to pass the answer on piece by piece.

    Errors and servers that ignore `stream` answer with plain JSON.
    """
    kind = response.content_type
    return kind.startswith(_EVENTS) or (
        asked and response.status == 200 and not kind.startswith(_JSON)
    )


async def relay_whole(response: Response, exchange: Exchange, send: Send) -> None:
    """Passes on an answer that is not a stream.

    One that is whole at once is sent at once. One that is not is passed on as it comes: some
    servers send line ends while they work, so that nobody takes the connection for dead.

    Raises UpstreamError when it breaks off before the client has seen anything of it.
    """
    if not await response.gather(_GATHER_S):
        await _relay_as_it_comes(response, exchange, send)
        return
    raw = await response.read()
    exchange.answer_bytes = len(raw)
    await _finish_whole(response, exchange, raw)
    await respond(send, response.status, _headers(response, exchange), raw)


async def _relay_as_it_comes(response: Response, exchange: Exchange, send: Send) -> bool:
    """False if the answer broke off: the client's must be aborted too."""
    exchange.status = response.status
    pieces: list[bytes] = []
    await start(send, response.status, _headers(response, exchange))
    try:
        while chunk := await response.next_chunk():
            exchange.answer_bytes += len(chunk)
            if exchange.answer_bytes <= MAX_BODY_BYTES:
                pieces.append(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except UpstreamError:
        await exchange.finish(Outcome.TEACHER_BROKE)
        return False
    await _finish_whole(response, exchange, b"".join(pieces))
    await send({"type": "http.response.body", "body": b""})
    return True


async def _finish_whole(response: Response, exchange: Exchange, raw: bytes) -> None:
    exchange.completion = completion = _read(exchange, raw)
    exchange.status = response.status
    failed = response.status >= 400 or completion.error_type is not None
    await exchange.finish(Outcome.ERROR if failed else Outcome.COMPLETE)


async def relay_stream(response: Response, exchange: Exchange, send: Send) -> bool:
    """Passes on a stream. False if it broke off: the client's stream must be aborted too.

    The trace is recorded when the stream's end mark has come and was not sent yet; without such a
    mark at the end of the body, before the client is told of it.
    """
    exchange.status = response.status
    assembler = _Reading(exchange)
    await start(send, response.status, _headers(response, exchange))
    try:
        while chunk := await response.next_chunk():
            if exchange.first_chunk_ms is None:
                exchange.first_chunk_ms = exchange.arrival.ms
            assembler.feed(chunk)
            exchange.answer_bytes += len(chunk)
            if assembler.done and not exchange.recorded:
                exchange.completion = assembler.finish()
                await exchange.finish(_outcome(exchange.completion, done=True))
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except UpstreamError:
        if not exchange.recorded:
            exchange.completion = assembler.finish()
            await exchange.finish(Outcome.TEACHER_BROKE)
            return False
    finally:
        if not exchange.recorded:  # also if the client hung up: the part that it got
            exchange.completion = assembler.finish()
    await exchange.finish(_outcome(exchange.completion, done=False))
    await send({"type": "http.response.body", "body": b""})
    return True


class _Reading:
    """Reads a stream on the side. No fault in here reaches the client."""

    __slots__ = ("_assembler", "_begun", "_exchange", "_failed", "_json")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._assembler = exchange.surface.assembler()
        self._failed = False
        self._begun = False  # with something else than line ends
        self._json: list[bytes] | None = None  # of a plain answer that is called a stream

    @property
    def done(self) -> bool:
        """Whether the stream's own end mark has come."""
        return self._assembler.done

    def feed(self, chunk: bytes) -> None:
        if not self._begun:
            self._begun = bool(chunk.strip())
            if self._begun and _is_json(chunk):
                self._json = []
        if self._json is not None:
            self._json.append(chunk)
        elif not self._failed:
            try:
                self._assembler.feed(chunk)
            except Exception as error:
                self._give_up(error)

    def finish(self) -> Completion:
        """The completion as far as it came; one that is marked as unread where that failed."""
        if self._json is not None:
            return _read(self._exchange, b"".join(self._json))
        if not self._failed:
            try:
                return self._assembler.finish()
            except Exception as error:
                self._give_up(error)
        return Completion(error_type=UNREAD)

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        _log_unread(self._exchange, error)


def _read(exchange: Exchange, raw: bytes) -> Completion:
    """A plain answer's completion. No fault in here reaches the client."""
    try:
        if _is_events(raw):  # a stream under another content type
            assembler = exchange.surface.assembler()
            assembler.feed(raw)
            return assembler.finish()
        return exchange.surface.read_answer(raw)
    except Exception as error:
        _log_unread(exchange, error)
        return Completion(error_type=UNREAD)


def _log_unread(exchange: Exchange, error: Exception) -> None:
    log.error("answer_unread trace=%s error=%s", exchange.trace_id, type(error).__name__)


def _is_json(begin: bytes) -> bool:
    return begin.removeprefix(BOM).lstrip()[:1] in (b"{", b"[")


def _is_events(begin: bytes) -> bool:
    return begin.removeprefix(BOM).lstrip()[:6].startswith(_BEGINNINGS)


def _outcome(completion: Completion, *, done: bool) -> Outcome:
    """The outcome of a stream that was not cut off: an error may end it, `[DONE]` may lack."""
    if completion.error_type is not None:
        return Outcome.ERROR
    return Outcome.COMPLETE if done or completion.finish_reasons else Outcome.TEACHER_BROKE


def _headers(response: Response, exchange: Exchange) -> Headers:
    return without_length(from_upstream(response.headers)) + exchange.answer_headers()


async def relay_untouched(response: Response, send: Send) -> bool:
    """Passes on an answer without logging it; False if it broke off."""
    await start(send, response.status, from_upstream(response.headers))
    try:
        while chunk := await response.next_chunk():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except UpstreamError:
        return False
    await send({"type": "http.response.body", "body": b""})
    return True
