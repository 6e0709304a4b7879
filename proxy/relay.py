"""Relays a teacher's answer byte for byte; its trace is in the journal before the last byte."""

from __future__ import annotations

from proxy.exchange import Exchange
from proxy.http.asgi import Headers, Send, respond, start
from proxy.http.headers import from_upstream, without_length
from proxy.surfaces.completion import Completion
from proxy.upstream.errors import UpstreamError
from proxy.upstream.response import Response
from store.records import Outcome

_EVENTS = "text/event-stream"
_JSON = "application/json"


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

    Raises UpstreamError when it breaks off, before the client has seen anything of it.
    """
    raw = await response.read()
    exchange.answer_bytes = len(raw)
    exchange.completion = exchange.surface.read_answer(raw)
    exchange.status = response.status
    await exchange.finish(Outcome.COMPLETE if response.status < 400 else Outcome.ERROR)
    await respond(send, response.status, _headers(response, exchange), raw)


async def relay_stream(response: Response, exchange: Exchange, send: Send) -> bool:
    """Passes on a stream. False if it broke off: the client's stream must be aborted too.

    The trace is recorded when the stream's end mark has come and was not sent yet; without such a
    mark at the end of the body, before the client is told of it.
    """
    exchange.status = response.status
    assembler = exchange.surface.assembler()
    await start(send, response.status, _headers(response, exchange))
    try:
        while chunk := await response.next_chunk():
            if exchange.first_chunk_ms is None:
                exchange.first_chunk_ms = exchange.arrival.ms
            exchange.answer_bytes += len(chunk)
            assembler.feed(chunk)
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
