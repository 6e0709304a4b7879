"""Reading a compressed answer as what it holds.

Upstreams are asked for plain answers; some compress all the same.
"""

from __future__ import annotations

import asyncio
import zlib

from proxy.http.asgi import header
from proxy.upstream.errors import Broke
from proxy.upstream.response import MAX_BODY_BYTES, Response

_STEP = 64 * 1024  # bytes that come out at a time, however much they were squeezed
_STEPS_A_TURN = 16  # then others may run
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
        self._ended = False  # what follows is padding
        self._pending = b""
        self._full = False  # the last step was filled: zlib may hold more

    def feed(self, data: bytes) -> None:
        """Takes the next bytes, when `step` has given all that came before."""
        self._pending = data

    def step(self) -> bytes:
        """Some of what the bytes so far hold; empty when it takes more of them.

        Raises zlib.error when they are not in this encoding.
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
        """Whether the bytes so far may be all."""
        return self._inflate is None

    def _begin(self) -> zlib._Decompress | None:
        """What decodes the next member; None when there is only padding left."""
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
        """As Response has it."""
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
        """As Response has it."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.next_chunk():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                self.close()
                raise Broke
            if len(pieces) % _STEPS_A_TURN == 0:
                await asyncio.sleep(0)
        return b"".join(pieces)

    def close(self) -> None:
        """As Response has it."""
        self._inner.close()
