"""Asking the teacher: which deployment, what it is sent, and what its silence means."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import orjson

from proxy.http.errors import ApiError, teacher_down, teacher_slow, teacher_starting, unknown_model
from proxy.http.headers import Pairs
from proxy.upstream.client import Body, Response, Slow, Unreachable, Upstream, UpstreamError
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
        found = self._pool.choose(model)
        if found is None:
            raise unknown_model(model)
        return found

    def for_any(self, model: str) -> Deployment:
        """The deployment for a model name: the default one, by that name, when no entry matches.

        A teacher has more models than a config names for chat completions: those that embed, say.
        """
        return self._pool.choose(model) or replace(
            self.default(), model_name=model, upstream_model=model
        )

    def default(self) -> Deployment:
        """The deployment for what names no model: the one that `teacher.model` names."""
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
    raw: bytes, body: dict[str, Any], untagged: dict[str, Any] | None, deployment: Deployment
) -> bytes:
    """What the teacher is sent: the client's own bytes wherever nothing has to change.

    `untagged` is the body without its tag, None when it carried none. `model` is in the body, or
    something else in it names one.
    """
    if body.get("model") not in (None, deployment.upstream_model):
        return orjson.dumps({**(untagged or body), "model": deployment.upstream_model})
    return raw if untagged is None else orjson.dumps(untagged)


def refusal(error: UpstreamError, deployment: Deployment) -> ApiError:
    """What the client is told when the teacher gave no whole answer."""
    if isinstance(error, Slow):
        return teacher_slow(deployment.model_name)
    return teacher_down(deployment.model_name)
