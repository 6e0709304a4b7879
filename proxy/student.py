"""Asking the student that a route names, over the proxy's own connections."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.upstream.client import Upstream
from proxy.upstream.errors import UpstreamError
from store.chat.asking import STUDENT_PATH, StudentReply, ask_student
from store.jsontext import JsonMapping
from store.records import Route

_HEADERS = [(b"content-type", b"application/json")]


class Student:
    """Asks the student that a route names."""

    def __init__(self, upstream: Upstream, placeholders: Sequence[str] = ()) -> None:
        """`placeholders`: stand for redacted text; no answer that is served contains one."""
        self._upstream = upstream
        self._placeholders = tuple(placeholders)

    async def ask(self, route: Route, request: JsonMapping) -> StudentReply:
        """The student's reply to a request that `decide` has sent to it. Never raises for it."""

        async def send(body: bytes) -> tuple[int, bytes]:
            url = f"{route.base_url}{STUDENT_PATH}"
            try:
                response = await self._upstream.send("POST", url, _HEADERS, body)
                try:
                    return response.status, await response.read() if response.status == 200 else b""
                finally:
                    response.close()
            except UpstreamError as error:
                raise ConnectionError(str(error)) from None

        return await ask_student(route.terms, request, send, placeholders=self._placeholders)
