"""/distill and below: forwarded to the control plane, which owns the store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit

from proxy.access.keys import Client, Keys
from proxy.access.limits import Limits
from proxy.http.asgi import Headers, Receive, Scope, Send, header, respond
from proxy.http.body import read_body
from proxy.http.errors import control_plane_down, foreign_command
from proxy.http.headers import to_control_plane
from proxy.http.watch import ClientWatch
from proxy.relay import relay_untouched
from proxy.upstream.client import Upstream
from proxy.upstream.errors import UpstreamError
from proxy.upstream.response import Response
from store.process.control_page import ControlPage
from store.process.workers import Roster
from store.settings.config import Right

PREFIX = "/distill"
PATIENCE_S = 1.6  # until one that may hang is looked at


class ControlPlaneGateway:
    """The status API, under the same keys as everything else. 503 while its process is down, or
    hangs.
    """

    def __init__(
        self,
        *,
        keys: Keys,
        limits: Limits,
        body_limit: int,
        upstream: Upstream,
        port: int,
        token: str,
        page: ControlPage | None = None,
    ) -> None:
        self._keys = keys
        self._limits = limits
        self._body_limit = body_limit
        self._upstream = upstream
        self._base_url = f"http://127.0.0.1:{port}"
        self._token = token
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError."""
        headers: Headers = scope["headers"]
        needs = right_for(scope["method"], scope["path"])
        client = self._keys.authenticate(headers, needs=needs, browser=True)
        if needs is not None and _from_another_site(headers):
            raise foreign_command()
        if scope["raw_path"].endswith(b"/"):
            await _without_slash(scope, send)
            return
        with self._limits.upload(client) as arrived:
            body = await read_body(receive, headers, self._body_limit, arrived=arrived)
            await self._pass(scope, client, body, send)

    async def _pass(self, scope: Scope, client: Client, body: bytes, send: Send) -> None:
        """Raises ApiError 503."""
        headers: Headers = scope["headers"]
        query: bytes = scope["query_string"]
        roster: Roster | None = (scope.get("state") or {}).get("roster")
        target = (scope["raw_path"] + (b"?" + query if query else b"")).decode("ascii")
        with ClientWatch(scope) as watch:
            try:
                response = await self._unless_it_hangs(
                    self._upstream.send(
                        scope["method"],
                        self._base_url + target,
                        to_control_plane(
                            headers,
                            self._token,
                            client.name,
                            roster.routes_held() if roster is not None else (),
                        ),
                        body or None,
                        decode=False,
                    )
                )
                try:
                    await relay_untouched(response, send)
                finally:
                    response.close()
            except UpstreamError:
                raise control_plane_down() from None
            except asyncio.CancelledError:
                if not watch.gone:
                    raise

    async def _unless_it_hangs(self, sent: Coroutine[Any, Any, Response]) -> Response:
        """The answer; gives up when none comes and the control plane's page says that it hangs.

        Raises UpstreamError and ApiError.
        """
        answer = asyncio.create_task(sent)
        try:
            while not (await asyncio.wait({answer}, timeout=PATIENCE_S))[0]:
                if self._page is not None and not self._page.state.answers:
                    raise control_plane_down()
            return await answer
        finally:
            answer.cancel()


def right_for(method: str, path: str) -> Right | None:
    """The right that a request to the control plane needs. None: any key may read the status."""
    if method in ("GET", "HEAD"):
        return None
    if path == f"{PREFIX}/forget":
        return "forget"
    # the commands of a task; all else that changes something is configuration
    return "operate" if path.startswith(f"{PREFIX}/tasks/") else "configure"


async def _without_slash(scope: Scope, send: Send) -> None:
    """Redirects to the address without the final slash, so that relative links work."""
    query: bytes = scope["query_string"]
    location = scope["raw_path"].rstrip(b"/") + (b"?" + query if query else b"")
    await respond(send, 308, [(b"location", location)], b"")


def _from_another_site(headers: Headers) -> bool:
    """Whether a page of another site sends this.

    A browser adds its user's HTTP Basic credentials by itself, whichever page sends the request. It
    also states the page's origin: in Sec-Fetch-Site (W3C Fetch Metadata) if it trusts the address,
    in Origin (RFC 6454) with every method but GET and HEAD. A client that sends neither is not a
    browser.
    """
    site = header(headers, b"sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    origin = header(headers, b"origin")
    if origin is None:
        return False
    try:
        page = urlsplit(origin.decode("latin-1")).netloc
    except ValueError:
        return True
    return page.lower() != (header(headers, b"host") or b"").decode("latin-1").lower()
