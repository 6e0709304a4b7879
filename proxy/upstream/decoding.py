"""Decodes compressed answers. Upstreams are asked for plain ones, but some compress anyway."""

from __future__ import annotations

import asyncio
import zlib

from proxy.http.asgi import header
from proxy.upstream.errors import Broke
from proxy.upstream.response import MAX_BODY_BYTES, Response

_STEP = 64 * 1024  # decoded bytes at a time, whatever the ratio
_STEPS_PER_TURN = 16  # then other tasks may run
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_BEGINS = 0x1F


def decoded(response: Response) -> Response:
    """The same answer with its body decoded. One in an encoding not known here stays as it is."""
    coding = header(response.headers, b"content-encoding")
    if coding is None:
        return response
    coding = coding.strip().lower()
    if coding in (b"gzip", b"x-gzip"):
        return Decoded(response, Decoder(gzip=True))
    if coding == b"deflate":
        return Decoded(response, Decoder(gzip=False))
    return response


class Decoder:
    """Decodes gzip (RFC 1952) and deflate (RFC 1950; without its header, as some send it)."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._inflate: zlib._Decompress | None = None  # None: at the beginning of a member
        self._members = 0
        self._ended = False  # the rest is padding
        self._pending = b""
        self._full = False  # the last step was full: zlib may have more

    def feed(self, data: bytes) -> None:
        """Takes the next bytes, once `step` has returned all of the previous ones."""
        self._pending = data

    def step(self) -> bytes:
        """The next decoded bytes; empty if more input is needed.

        Raises zlib.error if the input is not in this encoding.
        """
        while (self._pending or self._full) and not self._ended:
            inflate = self._inflate or self._begin()
            if inflate is None:
                break
            out = inflate.decompress(self._pending, _STEP)
            self._pending = inflate.unconsumed_tail
            self._full = len(out) == _STEP and not inflate.eof
            if inflate.eof:
                self._inflate = None
                self._pending = inflate.unused_data
            if out:
                return out
        return b""

    @property
    def whole(self) -> bool:
        """Whether the input may end here."""
        return self._inflate is None

    def _begin(self) -> zlib._Decompress | None:
        """The decoder of the next member; None if only padding is left."""
        first = self._pending[0]
        if self._members and not (self._gzip and first == _GZIP_BEGINS):
            self._ended = True
            return None
        self._members += 1
        if self._gzip:
            bits = _GZIP
        else:
            bits = zlib.MAX_WBITS if first & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS
        self._inflate = zlib.decompressobj(bits)
        return self._inflate


class Decoded(Response):
    """A response whose body is decoded as it is read, a bounded step at a time."""

    __slots__ = ("_decoder", "_inner")

    def __init__(self, inner: Response, decoder: Decoder) -> None:
        plain = [
            pair
            for pair in inner.headers
            if pair[0] not in (b"content-encoding", b"content-length")
        ]
        super().__init__(inner.status, plain)
        self._inner = inner
        self._decoder = decoder

    async def next_chunk(self) -> bytes:
        try:
            while not (piece := self._decoder.step()):
                raw = await self._inner.next_chunk()
                if not raw:
                    if not self._decoder.whole:
                        raise Broke
                    return b""
                self._decoder.feed(raw)
        except zlib.error:
            self.close()
            raise Broke from None
        return piece

    async def read(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := await self.next_chunk():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                self.close()
                raise Broke
            if len(pieces) % _STEPS_PER_TURN == 0:
                await asyncio.sleep(0)
        return b"".join(pieces)

    def close(self) -> None:
        self._inner.close()
