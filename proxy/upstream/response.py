"""An upstream's answer as the proxy reads it, whatever it comes through."""

from __future__ import annotations

from abc import ABC, abstractmethod

from proxy.http.asgi import Headers, header


class Response(ABC):
    """An upstream's answer: the status and the headers now, the body when it is asked for."""

    __slots__ = ("headers", "status")

    def __init__(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers  # names in lower case

    @property
    def content_type(self) -> str:
        """The media type in lower case with its parameters, `""` when none is given."""
        value = header(self.headers, b"content-type")
        return "" if value is None else value.decode("latin-1").lower()

    @abstractmethod
    async def read(self) -> bytes:
        """The whole body, or what is left of it. Raises Slow or Broke.

        A body of more than MAX_BODY_BYTES bytes counts as broken: nobody could hold it.
        """

    @abstractmethod
    async def next_chunk(self) -> bytes:
        """What has come since the last call, at least one byte; empty at the end of the body.

        Raises Slow or Broke, after all that came before.
        """

    @abstractmethod
    def close(self) -> None:
        """Stops reading: a connection with more to come is closed, another one is kept."""


MAX_BODY_BYTES = 512 * 1024 * 1024  # bytes of a body that is read as a whole
