"""Asks the teacher: chooses the deployment, builds its body, turns faults into refusals."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import replace
from urllib.parse import urljoin, urlsplit

import orjson

from proxy.http.asgi import header
from proxy.http.errors import ApiError, teacher_down, teacher_slow, teacher_starting, unknown_model
from proxy.http.headers import Pairs, to_teacher
from proxy.upstream.client import Body, Upstream
from proxy.upstream.errors import Broke, Slow, Unreachable, UpstreamError
from proxy.upstream.response import Response
from store.jsontext import JsonObject
from store.settings.config import TeacherSettings
from store.settings.teachers import Deployment, TeacherPool, name_of_wildcard

_POLL_S = 0.25
_POLL_TIMEOUT_S = 2.0
_MAX_REMEMBERED = 50_000  # responses
_MAX_REDIRECTS = 5
_MAX_REPEATS = 2  # of a request that met a LiteLLM child which was starting, or which died
_WITH_EFFECTS = ("background", "conversation", "container", "mcp_servers")
_SAFE = ("GET", "HEAD")  # methods without effects (RFC 9110, section 9.2.1)
_CLIENTS_TOOLS = ("function", "custom")  # which clients call; providers call all others
_REDIRECTS = (301, 302, 303, 307, 308)
_KEEPING = (307, 308)  # method and body (RFC 9110, section 15.4)

log = logging.getLogger(__name__)


class Teacher:
    """All deployments of `model_list`, behind one call."""

    def __init__(self, pool: TeacherPool, upstream: Upstream, settings: TeacherSettings) -> None:
        self._pool = pool
        self._upstream = upstream
        self._settings = settings
        self._several = len(pool.endpoints) > 1
        self._made: OrderedDict[str, Deployment] = OrderedDict()  # response → who made it

    @property
    def model_names(self) -> list[str]:
        """The names that clients may use."""
        return self._pool.model_names

    def named(self, model: str) -> Deployment:
        """The deployment for a model name. Raises ApiError 404 when there is none."""
        deployment = self._pool.choose(model)
        if deployment is None:
            raise unknown_model(model)
        return deployment

    def deployment(self, model: str | None, *, any_model: bool) -> Deployment:
        """The deployment for a request's model; the default one if the request names none.

        `any_model`: whether the default deployment is asked, under the client's name, for models
        that no entry of `model_list` matches. Raises ApiError 404 otherwise.
        """
        if model is None:
            return self.default()
        if not any_model:
            return self.named(model)
        return self._pool.choose(model) or replace(
            self.default(), model_name=model, upstream_model=model
        )

    def remember(self, response_id: str | None, deployment: Deployment) -> None:
        """Notes which deployment made a response, as no other one knows it."""
        if self._several and response_id:
            self._made[response_id] = deployment
            if len(self._made) > _MAX_REMEMBERED:
                self._made.popitem(last=False)

    def continuing(self, response_id: object, model: str | None) -> list[Deployment]:
        """The deployments of a model that may know a response, to be asked in this order.

        One where it is known who made it (by this worker, since it started); else all of that name.
        """
        if not self._several or not isinstance(response_id, str) or model is None:
            return []
        maker = self._made.get(response_id)
        if maker is not None:
            beside = self._pool.choose_beside(model, maker)
            return [] if beside is None else [beside]
        return self._pool.all_of(model)

    def makers(self, response_id: str) -> list[Deployment]:
        """The endpoints that may have made a response, to be asked in this order."""
        maker = self._made.get(response_id)
        return self._pool.endpoints if maker is None else [maker]

    async def wildcard_models(self) -> list[JsonObject]:
        """The models behind the wildcards of `model_list`, as their endpoints list them."""
        found: list[JsonObject] = []
        for deployment in self._pool.wildcards:
            try:
                response = await self.ask(
                    deployment, "GET", "/models", to_teacher([], deployment, readable=True), None
                )
                try:
                    listed = orjson.loads(await response.read())["data"]
                finally:
                    response.close()
                for entry in listed:
                    name = name_of_wildcard(deployment, entry["id"])
                    if name is not None:
                        found.append({**entry, "id": name})
            except (ApiError, UpstreamError, ValueError, LookupError, TypeError, AttributeError):
                log.warning("models_unknown model_name=%s", deployment.model_name)
        return found

    def default(self) -> Deployment:
        """The deployment that `teacher.model` names, for requests without a model."""
        return self._pool.choose(self._pool.default) or self._pool.deployments[0]

    async def ask(
        self,
        deployment: Deployment,
        method: str,
        path: str,
        headers: Pairs,
        body: Body,
        *,
        decode: bool = True,
        repeatable: bool = False,
    ) -> Response:
        """The teacher's answer to `path` (below /v1, with its query string).

        `repeatable`: asked again if the LiteLLM child dies before it answers; a GET is in any case.
        Raises ApiError 502, 503 or 504. A LiteLLM child that is still starting is waited for.
        """
        url = deployment.base_url + path
        left = 0 if deployment.direct else _MAX_REPEATS
        while True:
            try:
                response = await self._upstream.send(method, url, headers, body, decode=decode)
                if response.status in _REDIRECTS:
                    return await self._follow(response, method, url, headers, body, decode=decode)
                return response
            except UpstreamError as error:
                again = left > 0 and (repeatable or (method in _SAFE and body is None))
                if isinstance(error, Unreachable) and left > 0:
                    await self._litellm_ready(deployment)  # nothing was sent: the body is whole
                elif not (again and await self.came_back(deployment, error)):
                    raise refusal(error, deployment) from None
                left -= 1

    async def came_back(self, deployment: Deployment, error: UpstreamError) -> bool:
        """Whether it was the LiteLLM child that broke off an answer. It is there again then.

        It answers whatever its provider does, and breaks off only when it dies. Raises ApiError 503
        if it does not come back in time.
        """
        if deployment.direct or not isinstance(error, Broke):
            return False
        log.warning("litellm_broke_off model_name=%s", deployment.model_name)
        await self._litellm_ready(deployment)
        return True

    async def _follow(
        self,
        response: Response,
        method: str,
        url: str,
        headers: Pairs,
        body: Body,
        *,
        decode: bool,
    ) -> Response:
        """The answer after redirects within the same host. Raises UpstreamError."""
        for _ in range(_MAX_REDIRECTS):
            if response.status not in _REDIRECTS:
                break
            target = followed(method, url, response, body)
            if target is None:
                break
            response.close()
            url = target
            response = await self._upstream.send(method, url, headers, body, decode=decode)
        return response

    async def _litellm_ready(self, deployment: Deployment) -> None:
        alive = deployment.base_url.removesuffix("/v1") + "/health/liveliness"
        deadline = time.monotonic() + self._settings.litellm_start_timeout_s
        while not await self._upstream.answers(alive, within_s=_POLL_TIMEOUT_S):
            if time.monotonic() >= deadline:
                raise teacher_starting(deployment.model_name)
            await asyncio.sleep(_POLL_S)


def is_repeatable(body: JsonObject) -> bool:
    """Whether asking the same twice has no effect but a second answer.

    Not where the provider keeps a conversation, works in the background, or calls tools itself.
    """
    if any(body.get(name) for name in _WITH_EFFECTS):
        return False
    tools = body.get("tools")
    return not isinstance(tools, list) or all(
        isinstance(tool, dict) and tool.get("type", "custom") in _CLIENTS_TOOLS for tool in tools
    )


def followed(method: str, url: str, response: Response, body: Body) -> str | None:
    """Where a redirect is followed to; None where the client gets it instead.

    Never to another host, which would get the teacher's key, and only where method and body stay as
    they are: a client follows the others as it would without us.
    """
    location = header(response.headers, b"location")
    kept = response.status in _KEEPING or method in ("GET", "HEAD")
    if location is None or not kept or not isinstance(body, bytes | None):
        return None
    try:
        target = urljoin(url, location.decode("ascii"))
        here, there = urlsplit(url), urlsplit(target)
        same_port = here.port == there.port and here.scheme == there.scheme
    except ValueError:
        return None
    upgraded = (here.scheme, there.scheme, here.port, there.port) == ("http", "https", None, None)
    if here.hostname != there.hostname or not (same_port or upgraded) or there.username:
        return None
    return target.partition("#")[0]


def teacher_body(
    raw: bytes, body: JsonObject, untagged: JsonObject | None, deployment: Deployment
) -> bytes:
    """The body for the teacher: the client's own bytes unless something has to change.

    `untagged`: the body without its tag, None if it carried none.
    """
    if body.get("model") not in (None, deployment.upstream_model):
        return orjson.dumps({**(untagged or body), "model": deployment.upstream_model})
    return raw if untagged is None else orjson.dumps(untagged)


def refusal(error: UpstreamError, deployment: Deployment) -> ApiError:
    """The refusal that a client gets if the teacher gave no whole answer."""
    if isinstance(error, Slow):
        return teacher_slow(deployment.model_name)
    return teacher_down(deployment.model_name)
