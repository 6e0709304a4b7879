"""The HTTP client of the command line: asks a running server, for example for its status."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.errors import ProductError

if TYPE_CHECKING:
    from store.settings.config import Right

TIMEOUT_S = 10.0
DEFAULT_SERVER = "http://127.0.0.1:4100"


class ServerRefused(ProductError):
    """A server answered with an error status."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"HTTP {code}{f': {detail}' if detail else ''}")
        self.code = code
        self.detail = detail  # the message of its error object; empty when it has none


def fetch_status(server: str, *, key: str | None = None, task: str | None = None) -> Any:
    """The status as parsed JSON: of everything, or of one task.

    `server` is the proxy's URL without `/v1`. Raises ProductError.
    """
    path = f"/distill/status/{quoted(task)}" if task else "/distill/status"
    try:
        return ask(server, path, key=key)
    except ServerRefused as refused:
        detail = f": {refused.detail}" if refused.detail else ""
        if refused.code == 404 and task:
            raise ProductError(f"{server} has no task {task}{detail}") from None
        raise ProductError(f"{server} has no status now (HTTP {refused.code}){detail}") from None


def ask(
    server: str,
    path: str,
    *,
    key: str | None = None,
    body: Any = None,
    timeout_s: float = TIMEOUT_S,
) -> Any:
    """The server's answer as parsed JSON: to GET, or to POST when there is a body.

    Raises ServerRefused for an error status, ProductError for no answer or a missing key.
    """
    url = server.rstrip("/").removesuffix("/v1") + path
    if not url.startswith(("http://", "https://")):
        raise ProductError(f"{server} is not an http:// or https:// address")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    content = None
    if body is not None:
        content = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, data=content, headers=headers)  # noqa: S310
    # HTTP_PROXY and the like are for the internet, not for our own server
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            detail = _detail(error)
        if error.code == 401:
            raise ProductError(f"{server} wants a key: give one with --key") from None
        raise ServerRefused(error.code, detail) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        what = "status" if body is None else "answer"
        raise ProductError(
            f"no {what} from {server} ({reason}): is `understudy serve` running there?"
        ) from None


def quoted(part: str) -> str:
    """One segment of a path, percent-encoded."""
    return urllib.parse.quote(part, safe="")


def _detail(error: urllib.error.HTTPError) -> str:
    """The message in the server's error object: OpenAI's form, or FastAPI's detail."""
    try:
        body = json.load(error)
    except (OSError, ValueError):
        return ""
    if not isinstance(body, dict):
        return ""
    inner = body.get("error")
    message = inner.get("message") if isinstance(inner, dict) else body.get("detail")
    if isinstance(message, list):  # the errors of a body, one by one
        faults = [fault for fault in message if isinstance(fault, dict)]
        message = "; ".join(f"{_last(f.get('loc'))}: {f.get('msg')}" for f in faults)
    return str(message) if message else ""


def _last(place: Any) -> str:
    return str(place[-1]) if isinstance(place, list) and place else "body"


def server_of(
    config: Path, key: str | None, *, needs: Right | None = None
) -> tuple[str, str | None]:
    """The URL and the key with which the server of this config is reached.

    The key is the first of `server.keys` that has the right that it `needs`; where none has, the
    running server's own, which its data folder holds. The default server's, where there is no
    config file. Raises ConfigError when it cannot be used.
    """
    from cli.serve.data_folder import running_server  # noqa: PLC0415  (a status may not need it)
    from store.settings.config import load_config  # noqa: PLC0415

    if config == Path("config.yaml") and not config.exists():
        return DEFAULT_SERVER, key
    settings = load_config(config)
    running = running_server(settings.data_dir)
    keys = settings.server.keys
    if key is None and keys:
        able = [k.key.get_secret_value() for k in keys if needs is None or needs in k.may]
        own = running.operator_key if running is not None else ""
        key = able[0] if able else own or keys[0].key.get_secret_value()
    if running is not None and settings.server.port == 0:
        return running.url, key
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(  # noqa: S104
        settings.server.host, settings.server.host
    )
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}", key
