"""Decodes compressed answers. Upstreams are asked for plain ones, but some compress anyway.

An answer that is not in its encoding, or is cut within it, stays as it is where it is read whole;
in pieces, it ends where its decoding does.
"""

from __future__ import annotations

import asyncio

from proxy.http.asgi import header
from proxy.http.coding import CodingError, Decoder, decoder_of
from proxy.upstream.errors import Broke
from proxy.upstream.response import MAX_DECODED_BYTES, Response

_STEPS_PER_TURN = 16  # then other tasks may run


def decoded(response: Response) -> Response:
    """The same answer with its body decoded. One in an encoding not known here stays as it is."""
    coding = header(response.headers, b"content-encoding")
    if coding is None:
        return response
    decoder = decoder_of(coding)
    return response if decoder is None else Decoded(response, decoder)


class Decoded(Response):
    """A response whose body is decoded as it is read, a bounded step at a time."""

    __slots__ = ("_decoder", "_inner", "_steps")

    def __init__(self, inner: Response, decoder: Decoder) -> None:
        plain = [
            pair
            for pair in inner.headers
            if pair[0] not in (b"content-encoding", b"content-length")
        ]
        super().__init__(inner.status, plain)
        self._inner = inner
        self._decoder = decoder
        self._steps = 0

    async def gather(self, seconds: float) -> bool:
        return await self._inner.gather(seconds)

    async def next_chunk(self) -> bytes:
        self._steps += 1
        if self._steps % _STEPS_PER_TURN == 0:
            await asyncio.sleep(0)
        try:
            while not (piece := self._decoder.step()):
                raw = await self._inner.next_chunk()
                if not raw:
                    return b""  # some servers flush their encoder and never end it
                self._decoder.feed(raw)
        except CodingError:
            self.close()
            raise Broke from None
        return piece

    async def read(self) -> bytes:
        raw = await self._inner.read()
        pieces: list[bytes] = []
        size = 0
        self._decoder.feed(raw)
        try:
            while piece := self._decoder.step():
                pieces.append(piece)
                size += len(piece)
                if size > MAX_DECODED_BYTES:
                    raise CodingError
                if len(pieces) % _STEPS_PER_TURN == 0:
                    await asyncio.sleep(0)
            if not self._decoder.whole:
                raise CodingError
        except CodingError:  # the client's to understand, as it would be without us
            self.headers = self._inner.headers
            return raw
        return b"".join(pieces)

    def close(self) -> None:
        self._inner.close()
