"""Asks the teacher: chooses the deployment, builds its body, turns faults into refusals."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import orjson

from proxy.http.errors import ApiError, teacher_down, teacher_slow, teacher_starting, unknown_model
from proxy.http.headers import Pairs
from proxy.upstream.client import Body, Upstream
from proxy.upstream.errors import Slow, Unreachable, UpstreamError
from proxy.upstream.response import Response
from store.jsontext import JsonObject
from store.settings.config import TeacherSettings
from store.settings.teachers import Deployment, TeacherPool

_POLL_S = 0.25
_POLL_TIMEOUT_S = 2.0


class Teacher:
    """All deployments of `model_list`, behind one call."""

    def __init__(self, pool: TeacherPool, upstream: Upstream, settings: TeacherSettings) -> None:
        self._pool = pool
        self._upstream = upstream
        self._settings = settings

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
    ) -> Response:
        """The teacher's answer to `path` (below /v1, with its query string).

        Raises ApiError 502, 503 or 504. A LiteLLM child that is still starting is waited for.
        """
        url = deployment.base_url + path
        try:
            try:
                return await self._upstream.send(method, url, headers, body, decode=decode)
            except Unreachable:
                if deployment.direct:
                    raise
            await self._litellm_ready(deployment)  # nothing was sent: the body is still whole
            return await self._upstream.send(method, url, headers, body, decode=decode)
        except UpstreamError as error:
            raise refusal(error, deployment) from None

    async def _litellm_ready(self, deployment: Deployment) -> None:
        alive = deployment.base_url.removesuffix("/v1") + "/health/liveliness"
        deadline = time.monotonic() + self._settings.litellm_start_timeout_s
        while not await self._upstream.answers(alive, within_s=_POLL_TIMEOUT_S):
            if time.monotonic() >= deadline:
                raise teacher_starting(deployment.model_name)
            await asyncio.sleep(_POLL_S)


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
