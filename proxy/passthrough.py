"""Everything else under /v1/: streamed to the teacher and back, and not looked into."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson

from proxy.asgi import Headers, Receive, Scope, Send, header
from proxy.body import ClientGone, read_body
from proxy.errors import ApiError, unknown_path
from proxy.headers import Pairs, to_teacher
from proxy.keys import Keys
from proxy.relay import relay_untouched
from proxy.teacher import Teacher
from proxy.upstream import Body
from proxy.watch import ClientWatch
from store.teachers import Deployment

PREFIX = "/v1/"

# What the LiteLLM child is asked for. It is called with its master key, which opens much more.
_INFERENCE = frozenset(
    {
        "audio",
        "batches",
        "chat",
        "completions",
        "embeddings",
        "files",
        "fine_tuning",
        "images",
        "messages",
        "models",
        "moderations",
        "rerank",
        "responses",
    }
)


class Passthrough:
    """Passes requests on to the deployment that their body's `model` names, else to the default."""

    def __init__(self, *, keys: Keys, body_limit: int, teacher: Teacher) -> None:
        self._keys = keys
        self._body_limit = body_limit
        self._teacher = teacher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError."""
        headers: Headers = scope["headers"]
        self._keys.authenticate(headers)
        path = below_v1(scope)
        kind = header(headers, b"content-type") or b""
        deployment = self._teacher.default()
        body: Body = None
        watch = ClientWatch(receive)
        if kind.startswith(b"application/json"):
            raw = await read_body(receive, headers, self._body_limit)
            deployment, body = self._by_model(raw, deployment)
        elif _has_body(headers):  # an upload, of any size: never held in memory
            watch = ClientWatch(receive, at_once=False)
            body = _upload(receive, watch)
        if not deployment.direct and path.split("/")[1].partition("?")[0] not in _INFERENCE:
            raise unknown_path(scope["method"], scope["path"])
        sent = to_teacher(headers, deployment) + _framing(headers, body)
        with watch:
            try:
                response = await self._teacher.ask(
                    deployment, scope["method"], path, sent, body, decode=False
                )
                try:
                    await relay_untouched(response, send)
                finally:
                    response.close()
            except asyncio.CancelledError:
                if not watch.gone:
                    raise

    def _by_model(self, raw: bytes, default: Deployment) -> tuple[Deployment, bytes]:
        """The deployment for a JSON body, and the body with the name that it goes by there."""
        try:
            payload = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return default, raw
        model = payload.get("model") if isinstance(payload, dict) else None
        if not isinstance(model, str):
            return default, raw
        try:
            deployment = self._teacher.named(model)
        except ApiError:
            return default, raw  # the teacher knows more names than chat completions may use
        if deployment.upstream_model != model:
            raw = orjson.dumps({**payload, "model": deployment.upstream_model})
        return deployment, raw


def below_v1(scope: Scope) -> str:
    """The path below /v1 as it was sent, with its query string.

    Raises ApiError 404 on one with empty or dot segments, which might lead out of /v1 upstream.
    """
    raw: bytes = scope["raw_path"]
    segments = scope["path"].replace("\\", "/").split("/")
    odd = any(segment in ("", ".", "..") for segment in segments[1:-1]) or segments[-1] in (
        ".",
        "..",
    )
    if odd or not raw.startswith(b"/v1/"):
        raise unknown_path(scope["method"], scope["path"])
    query: bytes = scope["query_string"]
    return (raw[3:] + (b"?" + query if query else b"")).decode("ascii")


def _has_body(headers: Headers) -> bool:
    length = header(headers, b"content-length")
    return header(headers, b"transfer-encoding") is not None or length not in (None, b"0")


def _framing(headers: Headers, body: Body) -> Pairs:
    """An upload keeps the length that its client stated; without one it goes in chunks."""
    length = header(headers, b"content-length")
    if body is None or isinstance(body, bytes) or length is None:
        return []
    return [("content-length", length.decode("ascii"))]


async def _upload(receive: Receive, watch: ClientWatch) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            break
    watch.begin()
