"""Relays a teacher's answer byte for byte; its trace is in the journal before the last byte."""

from __future__ import annotations

from collections.abc import Awaitable

from proxy.exchange import Exchange
from proxy.http.asgi import Headers, Send, respond, start
from proxy.http.beside import LARGE
from proxy.http.headers import from_upstream
from proxy.reading import HeldBytes, Reading, read_plain
from proxy.surfaces.completion import Completion
from proxy.upstream.errors import UpstreamError
from proxy.upstream.response import Response
from store.records import Outcome

_EVENTS = "text/event-stream"
_JSON = "application/json"
_GATHER_S = 0.25  # how long the rest of a plain answer is waited for


def is_stream(response: Response, *, asked: bool) -> bool:
    """Whether to pass the answer on piece by piece.

    Errors and servers that ignore `stream` answer with plain JSON.
    """
    kind = response.content_type
    return kind.startswith(_EVENTS) or (
        asked and response.status == 200 and not kind.startswith(_JSON)
    )


async def relay_whole(
    response: Response, exchange: Exchange, send: Send, together: HeldBytes
) -> None:
    """Passes on an answer that is not a stream.

    One that is whole at once is sent at once. One that is not, or is large, is passed on as it
    comes: some servers send line ends while they work, so that nobody takes the connection for
    dead.

    Raises UpstreamError when it breaks off before the client has seen anything of it.
    """
    if not response.ended and not await response.gather(_GATHER_S):
        reading = Reading(exchange, together, stream=False)
        try:
            await _relay_as_it_comes(response, exchange, send, reading)
        finally:
            reading.close()
        return
    raw = await response.read()
    exchange.answer_bytes = len(raw)
    if len(raw) > LARGE:
        exchange.completion = await exchange.beside.run(read_plain, exchange, raw)
    else:
        exchange.completion = read_plain(exchange, raw)
    await _finish_whole(response, exchange)
    await respond(send, response.status, _headers(response, exchange), raw)


async def _relay_as_it_comes(
    response: Response, exchange: Exchange, send: Send, reading: Reading
) -> bool:
    """False if the answer broke off: the client's must be aborted too."""
    exchange.status = response.status
    await start(send, response.status, _headers(response, exchange))
    try:
        while chunk := await response.next_chunk():
            reading.feed(chunk)
            exchange.answer_bytes += len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except UpstreamError:
        await exchange.finish(Outcome.TEACHER_BROKE)
        return False
    exchange.completion = await reading.finished()
    await _finish_whole(response, exchange)
    await send({"type": "http.response.body", "body": b""})
    return True


def _finish_whole(response: Response, exchange: Exchange) -> Awaitable[None]:
    exchange.status = response.status
    failed = response.status >= 400 or exchange.completion.error_type is not None
    return exchange.finish(Outcome.ERROR if failed else Outcome.COMPLETE)


async def relay_stream(
    response: Response, exchange: Exchange, send: Send, together: HeldBytes
) -> bool:
    """Passes on a stream. False if it broke off: the client's stream must be aborted too.

    The trace is recorded when the stream's end mark has come and was not sent yet; without such a
    mark at the end of the body, before the client is told of it.
    """
    exchange.status = response.status
    reading = Reading(exchange, together, stream=True)
    try:
        return await _relay_events(response, exchange, send, reading)
    finally:
        reading.close()


async def _relay_events(
    response: Response, exchange: Exchange, send: Send, reading: Reading
) -> bool:
    await start(send, response.status, _headers(response, exchange))
    try:
        while chunk := await response.next_chunk():
            if exchange.first_chunk_ms is None:
                exchange.first_chunk_ms = exchange.arrival.ms
            if reading.is_large(chunk):
                await reading.feed_beside(chunk)
            else:
                reading.feed(chunk)
            exchange.answer_bytes += len(chunk)
            if reading.done and not exchange.recorded:
                exchange.completion = await reading.finished()
                await exchange.finish(_outcome(exchange.completion, done=True))
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if not exchange.recorded:
            exchange.completion = await reading.finished()
    except UpstreamError:
        if not exchange.recorded:
            exchange.completion = await reading.finished()
            await exchange.finish(Outcome.TEACHER_BROKE)
            return False
    except BaseException:  # the client hung up, say: the part that it got
        if not exchange.recorded:
            exchange.completion = reading.finish()
        raise
    await exchange.finish(_outcome(exchange.completion, done=False))
    await send({"type": "http.response.body", "body": b""})
    return True


def _outcome(completion: Completion, *, done: bool) -> Outcome:
    """The outcome of a stream that was not cut off: an error may end it, `[DONE]` may lack."""
    if completion.error_type is not None:
        return Outcome.ERROR
    return Outcome.COMPLETE if done or completion.finish_reasons else Outcome.TEACHER_BROKE


def _headers(response: Response, exchange: Exchange) -> Headers:
    return from_upstream(response.headers, framed=False) + exchange.answer_headers()


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
