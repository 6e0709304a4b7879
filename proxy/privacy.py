"""Whether a request's content may be kept, and its redaction.

    a key with `store: false` ─┐
    X-Understudy-Store: false ─┼─▶ content `none`: answered as usual, no text is logged
    `store: false` in the body ┘   (the last where `privacy.store_false` names the API)

    chat view ──redact──▶ for the fingerprint, the route, the student and the log
    answer ────redact──▶ for the log      teacher and client get each other's original bytes

The rules run within the event loop: some microseconds per kilobyte, some milliseconds at most.
Whatever takes longer runs in a thread: Presidio, long texts, and texts made to be slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from proxy.access.keys import Client
from proxy.http.asgi import Headers, header
from proxy.http.errors import ApiError, bad_request
from store.errors import RedactionError, RedactionSlow
from store.jsontext import JsonObject
from store.privacy.redaction import MAX_SECONDS, redaction_of
from store.privacy.settings import PrivacySettings
from store.records import Api

STORE_HEADER = b"x-understudy-store"
MAX_INLINE = 64 * 1024  # bytes of JSON that are redacted within the event loop
INLINE_S = 0.005  # and for how long at most
_BOOLEANS = {b"true": True, b"false": False}

T = TypeVar("T")


class Privacy:
    """The privacy settings of one process."""

    def __init__(self, settings: PrivacySettings) -> None:
        """Loads what the settings need. Raises ConfigError if that fails."""
        self._store_false = frozenset(settings.store_false)
        self._redaction = redaction_of(settings)
        # one thread: the search holds the GIL, so more threads would gain nothing
        self._thread = ThreadPoolExecutor(1, "redaction") if self._redaction else None
        self.placeholders = settings.placeholders
        self.redacts = self._redaction is not None

    def keeps(self, api: Api, body: JsonObject, headers: Headers, client: Client) -> bool:
        """Whether the content of this exchange may be kept. Raises ApiError 400.

        One `false` is enough: of the key, the header or the body.
        """
        return self.keeps_for(headers, client) and not (
            body.get("store") is False and api in self._store_false
        )

    def keeps_for(self, headers: Headers, client: Client) -> bool:
        """The same by the headers and the key alone."""
        value = header(headers, STORE_HEADER)
        if value is None:
            return client.store
        keep = _BOOLEANS.get(value.strip().lower())
        if keep is None:  # no guess: a wrong one would keep a secret
            raise bad_request(
                "Invalid value in header X-Understudy-Store: expected 'true' or 'false'.",
                code="invalid_value",
            )
        return keep and client.store

    async def view(self, chat: JsonObject, size: int) -> JsonObject:
        """The chat completion, redacted; the same object if nothing was found.

        `size`: of the request, in bytes. Raises RedactionError.
        """
        if self._redaction is None:
            return chat
        return await self._search(self._redaction.view, chat, size)

    async def messages(self, messages: list[JsonObject], size: int) -> list[JsonObject]:
        """The same of an answer's messages."""
        if self._redaction is None:
            return messages
        return await self._search(self._redaction.messages, messages, size)

    def messages_now(self, messages: list[JsonObject]) -> list[JsonObject]:
        """The same, without waiting. Raises RedactionError if it would take milliseconds."""
        if self._redaction is None:
            return messages
        if self._redaction.slow:
            raise RedactionError
        return self._redaction.messages(messages, INLINE_S)

    async def text(self, text: str) -> str:
        """The same of a text."""
        if self._redaction is None:
            return text
        return await self._search(self._redaction.text, text, len(text))

    async def _search(self, search: Callable[[T, float], T], where: T, size: int) -> T:
        assert self._redaction is not None, "there is something to search for"
        if not self._redaction.slow and size <= MAX_INLINE:
            try:
                return search(where, INLINE_S)
            except RedactionSlow:
                pass
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(MAX_SECONDS):
                return await loop.run_in_executor(self._thread, search, where, MAX_SECONDS)
        except TimeoutError:
            raise RedactionSlow from None


def correction_not_kept() -> ApiError:
    """400: a client that has opted out sends a correction, which would have to be kept."""
    return bad_request(
        "A correction is content, and this client has opted out of having content kept.",
        param="correction",
        code="content_not_kept",
    )
