"""What of a client's words may be kept: whether it has opted out, and what is redacted.

    a key with `store: false` ─┐
    X-Understudy-Store: false ─┼─▶ content `none`: answered as ever, and no word of it is logged
    `store: false` in the body ┘   (the last where `privacy.store_false` names the API)

    chat view ──redact──▶ what fingerprint, route, student and log look at
    answer ────redact──▶ the log          the teacher and the client get each other's own bytes

The rules work within the event loop, some microseconds a kilobyte, for some milliseconds at most.
A thread of its own does what takes longer: Presidio, a long text, and one that was made to.
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
MAX_INLINE = 64 * 1024  # bytes of JSON that are searched within the event loop…
INLINE_S = 0.005  # …for as long
_SAID = {b"true": True, b"false": False}

T = TypeVar("T")


class Privacy:
    """The privacy settings of one process."""

    def __init__(self, settings: PrivacySettings) -> None:
        """Loads what the settings need. Raises ConfigError when that fails."""
        self._store_false = frozenset(settings.store_false)
        self._redaction = redaction_of(settings)
        # one thread: the search holds Python's lock, more of them would only be in each other's way
        self._thread = ThreadPoolExecutor(1, "redaction") if self._redaction else None
        self.placeholders = settings.placeholders
        self.redacts = self._redaction is not None

    def keeps(self, api: Api, body: JsonObject, headers: Headers, client: Client) -> bool:
        """Whether the content of this exchange may be kept. Raises ApiError 400.

        One `false` is enough, wherever it stands.
        """
        return self.keeps_for(headers, client) and not (
            body.get("store") is False and api in self._store_false
        )

    def keeps_for(self, headers: Headers, client: Client) -> bool:
        """The same by the headers and the key alone."""
        said = header(headers, STORE_HEADER)
        if said is None:
            return client.store
        asked = _SAID.get(said.strip().lower())
        if asked is None:  # what is meant by it cannot be guessed, and a wrong guess keeps a secret
            raise bad_request(
                "Invalid value in header X-Understudy-Store: expected 'true' or 'false'.",
                code="invalid_value",
            )
        return asked and client.store

    async def view(self, chat: JsonObject, size: int) -> JsonObject:
        """The chat view without what is to be redacted; itself when that is nothing.

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
        """The same, without waiting. Raises RedactionError where that would take milliseconds."""
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


def content_is_not_kept() -> ApiError:
    """400: a client that has opted out sends content that is only there to be kept."""
    return bad_request(
        "A correction is content, and this client has opted out of having content kept.",
        param="correction",
        code="content_not_kept",
    )
