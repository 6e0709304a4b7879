"""Everything else under /v1/: streamed to the teacher and back, without being read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from urllib.parse import unquote

import orjson

from proxy.access.keys import Keys
from proxy.access.limits import Limits, Ticket
from proxy.http.asgi import Headers, Receive, Scope, Send, header
from proxy.http.beside import LARGE, Beside
from proxy.http.body import ClientGone, body_size, read_decoded
from proxy.http.errors import ApiError, too_deep, unknown_path
from proxy.http.headers import Pairs, to_teacher
from proxy.http.watch import ClientWatch
from proxy.multipart import boundary_of, model_field
from proxy.relay import relay_untouched
from proxy.teacher import Teacher
from proxy.upstream.client import Body
from proxy.upstream.response import Response
from store.settings.teachers import Deployment

PREFIX = "/v1/"
_RESPONSE = re.compile(r"/responses/([^/?]+)")

# The LiteLLM child serves only these. It is called with its master key, which allows much more.
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
    """Passes requests on to the deployment of their `model`, else to the default one."""

    def __init__(
        self, *, keys: Keys, limits: Limits, body_limit: int, teacher: Teacher, beside: Beside
    ) -> None:
        self._keys = keys
        self._limits = limits
        self._body_limit = body_limit
        self._teacher = teacher
        self._beside = beside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError."""
        headers: Headers = scope["headers"]
        client = self._keys.authenticate(headers)
        kind = header(headers, b"content-type") or b""
        json = kind.startswith(b"application/json")
        size = body_size(headers, self._body_limit)
        ticket = self._limits.admit(client)
        try:
            await self._pass(scope, receive, send, ticket, json=json, upload=size > 0 and not json)
        finally:
            ticket.release()

    async def _pass(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        ticket: Ticket,
        *,
        json: bool,
        upload: bool,
    ) -> None:
        path = below_v1(scope)
        deployment = self._teacher.default()
        body: Body = None
        if json:
            raw = await read_decoded(scope, receive, self._body_limit, arrived=ticket.arrived)
            if len(raw) > LARGE:
                deployment, body = await self._beside.run(self._by_model, raw, deployment)
            else:
                deployment, body = self._by_model(raw, deployment)
        elif upload:  # of any size, so it is streamed
            deployment, body = await self._by_form(scope, _upload(receive), deployment, ticket)
        if not deployment.direct and path.split("/")[1].partition("?")[0] not in _INFERENCE:
            raise unknown_path(scope["method"], scope["path"])
        deployments = [deployment]
        response_id = _RESPONSE.match(path)
        if response_id is not None and body is None:
            deployments = self._teacher.makers(unquote(response_id[1]))
        with ClientWatch(scope) as watch:
            try:
                response = await self._ask(deployments, scope, path, body)
                try:
                    await relay_untouched(response, send)
                finally:
                    response.close()
            except asyncio.CancelledError:
                if not watch.gone:
                    raise

    async def _ask(
        self, deployments: Sequence[Deployment], scope: Scope, path: str, body: Body
    ) -> Response:
        """The answer of the first of these that knows the path. Raises ApiError."""
        headers: Headers = scope["headers"]
        for deployment in deployments:
            sent = to_teacher(headers, deployment) + _framing(headers, body)
            last = deployment is deployments[-1]
            try:
                response = await self._teacher.ask(
                    deployment, scope["method"], path, sent, body, decode=False
                )
            except ApiError:
                if last:
                    raise
                continue
            if last or response.status != 404:
                return response
            response.close()
        raise unknown_path(scope["method"], scope["path"])

    async def _by_form(
        self, scope: Scope, upload: AsyncIterator[bytes], default: Deployment, ticket: Ticket
    ) -> tuple[Deployment, Body]:
        """The deployment for a form's field `model`, and the form with the deployment's name of it.

        A form above the limit is not held in memory: it goes to the default deployment.
        """
        headers: Headers = scope["headers"]
        boundary = boundary_of(header(headers, b"content-type") or b"")
        if boundary is None or body_size(headers, self._body_limit) > self._body_limit:
            return default, upload
        pieces, size = [], 0
        async for piece in upload:
            ticket.arrived(len(piece))
            pieces.append(piece)
            size += len(piece)
            if size > self._body_limit:
                return default, _chained(pieces, upload)
        raw = b"".join(pieces)
        place = model_field(raw, boundary)
        if place is None:
            return default, raw
        begin, end = place
        model = raw[begin:end].decode("utf-8", "replace").strip()
        try:
            deployment = self._teacher.named(model)
        except ApiError:
            return default, raw
        if deployment.upstream_model != model:
            raw = raw[:begin] + deployment.upstream_model.encode() + raw[end:]
        return deployment, raw

    def _by_model(self, raw: bytes, default: Deployment) -> tuple[Deployment, bytes]:
        """The deployment for a JSON body, and the body with the deployment's model name."""
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
            return default, raw  # the teacher has more models than model_list names
        if deployment.upstream_model != model:
            try:
                raw = orjson.dumps({**payload, "model": deployment.upstream_model})
            except TypeError:
                raise too_deep() from None
        return deployment, raw


def below_v1(scope: Scope) -> str:
    """The path below /v1 as it was sent, with its query string.

    Raises ApiError 404 on empty and dot segments, which might lead out of /v1 upstream.
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


def _framing(headers: Headers, body: Body) -> Pairs:
    """An upload keeps the client's content-length; without one it is sent in chunks."""
    length = header(headers, b"content-length")
    if body is None or isinstance(body, bytes) or length is None:
        return []
    return [(b"content-length", length)]


async def _chained(pieces: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    async for piece in rest:
        yield piece


async def _upload(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            break
