"""`understudy status`: asks a running server how its tasks stand."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from store.errors import ProductError

TIMEOUT_S = 10.0


def fetch_status(server: str, *, key: str | None = None, task: str | None = None) -> Any:
    """The status as parsed JSON: of everything, or of one task.

    `server` is the proxy's URL without `/v1`. Raises ProductError that says what is missing.
    """
    path = f"/distill/status/{urllib.parse.quote(task, safe='')}" if task else "/distill/status"
    url = server.rstrip("/").removesuffix("/v1") + path
    if not url.startswith(("http://", "https://")):
        raise ProductError(f"{server} is not an http:// or https:// address")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    # a proxy of the environment is for the internet, not for our own server
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            said = _said(error)
        if error.code == 401:
            raise ProductError(f"{server} wants a key: give one with --key") from None
        if error.code == 404 and task:
            raise ProductError(f"{server} has no task {task}{said}") from None
        raise ProductError(f"{server} has no status now (HTTP {error.code}){said}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ProductError(
            f"no status from {server} ({reason}): is `understudy serve` running there?"
        ) from None


def _said(error: urllib.error.HTTPError) -> str:
    """What the server's error object says, after a colon."""
    try:
        body = json.load(error)
    except (OSError, ValueError):
        return ""
    if not isinstance(body, dict):
        return ""
    inner = body.get("error")
    message = inner.get("message") if isinstance(inner, dict) else body.get("detail")
    return f": {message}" if message else ""
