"""The interface of an upstream's answer."""

from __future__ import annotations

from abc import ABC, abstractmethod

from proxy.http.asgi import Headers, header


class Response(ABC):
    """An upstream's answer: its status and headers, and its body to be read."""

    __slots__ = ("headers", "status")

    def __init__(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers  # names in lower case

    @property
    def content_type(self) -> str:
        """The media type in lower case with its parameters, `""` when none is given."""
        value = header(self.headers, b"content-type")
        return "" if value is None else value.decode("latin-1").lower()

    @property
    def ended(self) -> bool:
        """Whether the whole answer is here, or what came of it: `read` does not wait."""
        return False

    @abstractmethod
    async def read(self) -> bytes:
        """The rest of the body. Raises Slow or Broke.

        A body of more than MAX_BODY_BYTES counts as broken.
        """

    async def gather(self, seconds: float) -> bool:
        """Waits for the end, but only so long, and hardly beyond MAX_GATHERED_BYTES.

        Whether the body is whole, or broken off, by then. Then `read` does not wait, and otherwise
        `next_chunk` gives what has come.
        """
        return False

    @abstractmethod
    async def next_chunk(self) -> bytes:
        """The bytes that came since the last call; empty at the end of the body.

        Raises Slow or Broke, after all bytes that came before.
        """

    @abstractmethod
    def close(self) -> None:
        """Stops reading. A connection with an unfinished answer is closed, another one is kept."""


MAX_BODY_BYTES = 512 * 1024 * 1024  # bytes of a body that is read as a whole
MAX_DECODED_BYTES = 64 * 1024 * 1024  # of a body that comes compressed; more stays as it is
MAX_GATHERED_BYTES = 8 * 1024 * 1024  # of a body whose end is waited for before it is passed on
MIN_UNKNOWN_STATUS = 600  # HTTP has no status from here on (RFC 9110, section 15)
