"""Content codings: gzip, deflate, brotli and zstd, decoded a bounded step at a time.

decoder.feed(data)
while piece := decoder.step():
    …
# at the end of the input: decoder.whole
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import zstandard

STEP = 64 * 1024  # decoded bytes at a time, whatever the ratio, as far as the library can
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_BEGINS = 0x1F
_ZSTD_SLICE = 128  # bytes of input at a time: a block of 4 bytes may hold 128 KiB
_ZSTD_WINDOW = 2**27


class CodingError(Exception):
    """The input is not in this coding."""


class Decoder(ABC):
    """Decodes one body."""

    @abstractmethod
    def feed(self, data: bytes) -> None:
        """Takes the next bytes, once `step` has returned all of the previous ones."""

    @abstractmethod
    def step(self) -> bytes:
        """The next decoded bytes; empty if more input is needed. Raises CodingError."""

    @property
    @abstractmethod
    def whole(self) -> bool:
        """Whether the input may end here."""


def decoder_of(coding: bytes) -> Decoder | None:
    """The decoder of a `content-encoding`; None for one that is not known here."""
    name = coding.strip().lower()
    if name in (b"gzip", b"x-gzip"):
        return Inflate(gzip=True)
    if name == b"deflate":
        return Inflate(gzip=False)
    if name == b"br":
        return Brotli()
    if name == b"zstd":
        return Zstandard()
    return None


def decode(data: bytes, coding: bytes, limit: int) -> bytes | None:
    """A whole body decoded; None for an unknown coding.

    Raises CodingError, and OverflowError as soon as it has more than `limit` bytes.
    """
    decoder = decoder_of(coding)
    if decoder is None:
        return None
    pieces: list[bytes] = []
    size = 0
    decoder.feed(data)
    while piece := decoder.step():
        size += len(piece)
        if size > limit:
            raise OverflowError
        pieces.append(piece)
    if not decoder.whole:
        raise CodingError
    return b"".join(pieces)


class Inflate(Decoder):
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

        Raises CodingError if the input is not in this encoding.
        """
        try:
            return self._step()
        except zlib.error:
            raise CodingError from None

    def _step(self) -> bytes:
        while (self._pending or self._full) and not self._ended:
            inflate = self._inflate or self._begin()
            if inflate is None:
                break
            out = inflate.decompress(self._pending, STEP)
            self._pending = inflate.unconsumed_tail
            self._full = len(out) == STEP and not inflate.eof
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


class Brotli(Decoder):
    """Decodes brotli (RFC 7932)."""

    def __init__(self) -> None:
        import brotli  # type: ignore[import-untyped]  # noqa: PLC0415 - few bodies need it

        self._error: type[Exception] = brotli.error
        self._inner = brotli.Decompressor()
        self._pending = b""
        self._begun = False

    def feed(self, data: bytes) -> None:
        self._pending = data
        self._begun = self._begun or bool(data)

    def step(self) -> bytes:
        if self._inner.is_finished():
            return b""
        try:
            while self._pending or not self._inner.can_accept_more_data():
                if self._inner.can_accept_more_data():
                    data, self._pending = self._pending, b""
                else:
                    data = b""
                out = bytes(self._inner.process(data, output_buffer_limit=STEP))
                if out:
                    return out
        except self._error:
            raise CodingError from None
        return b""

    @property
    def whole(self) -> bool:
        return not self._begun or bool(self._inner.is_finished())


class Zstandard(Decoder):
    """Decodes zstd (RFC 8878)."""

    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415 - few bodies need it

        self._error: type[Exception] = zstandard.ZstdError
        self._frames = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._inner: zstandard.ZstdDecompressionObj | None = None  # None: between two frames
        self._data = b""
        self._at = 0  # where the next slice of it begins

    def feed(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def step(self) -> bytes:
        try:
            while self._at < len(self._data):
                inner = self._inner = self._inner or self._frames.decompressobj()
                data = self._data[self._at : self._at + _ZSTD_SLICE]
                self._at += len(data)
                out = inner.decompress(data)
                if inner.eof:
                    self._inner = None
                    self._at -= len(inner.unused_data)
                if out:
                    return out
        except self._error:
            raise CodingError from None
        return b""

    @property
    def whole(self) -> bool:
        return self._inner is None
