"""The ASGI application: which path is whose, and what lives as long as the process.

POST /v1/chat/completions   proxy.chat
POST /v1/feedback           proxy.feedback
GET  /v1/models[/NAME]      proxy.status
*    /v1/…                  proxy.passthrough
*    /distill[/…]           proxy.control
GET  /health                proxy.status, for anybody
"""

from __future__ import annotations

import asyncio
import logging
import time
from importlib.metadata import version

from proxy import chat, control, feedback, passthrough
from proxy.asgi import Handler, Receive, Scope, Send, start
from proxy.body import ClientGone
from proxy.errors import ApiError, internal, unknown_path, wrong_method
from proxy.keys import Keys
from proxy.status import Health, Models
from proxy.student import Student
from proxy.teacher import Teacher
from proxy.upstream import Upstream
from store.config import Config
from store.journal import JournalWriter
from store.routes import RoutesFile
from store.runtime import Runtime
from store.teachers import teacher_pool

UPKEEP_S = 0.25  # how often the journal is sealed and the routes are looked at

log = logging.getLogger(__name__)


class App:
    """The data plane of one process."""

    def __init__(
        self,
        *,
        chat_completions: Handler,
        feedback_box: Handler,
        models: Handler,
        passed_through: Handler,
        control_plane: Handler,
        health: Handler,
        upstream: Upstream,
        journal: JournalWriter,
        routes: RoutesFile,
    ) -> None:
        self._chat_completions = chat_completions
        self._models = models
        self._passed_through = passed_through
        self._control_plane = control_plane
        # paths that are ours alone: the methods that they take, and who answers
        self._ours: dict[str, tuple[tuple[str, ...], Handler]] = {
            "/health": (("GET", "HEAD"), health),
            feedback.PATH: (("POST",), feedback_box),
        }
        self._upstream = upstream
        self._journal = journal
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            await self._handler(scope["method"], scope["path"])(scope, receive, send)
        except ApiError as error:
            await error.send(send)
        except ClientGone:
            pass
        except Exception as error:
            log.error("request_failed", exc_info=error)
            await internal().send(send)

    def _handler(self, method: str, path: str) -> Handler:
        if len(path) > 1:
            path = path.rstrip("/")
        if method == "OPTIONS":
            return _options
        if method == "POST" and path == chat.PATH:
            return self._chat_completions
        if path in self._ours:
            methods, handler = self._ours[path]
            if method not in methods:
                raise wrong_method(method, methods[0])
            return handler
        if method in ("GET", "HEAD") and f"{path}/".startswith("/v1/models/"):
            return self._models
        if path.startswith(passthrough.PREFIX):
            return self._passed_through
        if f"{path}/".startswith(f"{control.PREFIX}/"):
            return self._control_plane
        raise unknown_path(method, path)

    async def _live(self, receive: Receive, send: Send) -> None:
        """From start to stop: connections open, the journal and the routes looked after."""
        await receive()
        await self._upstream.open()
        upkeep = asyncio.create_task(self._upkeep())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        upkeep.cancel()
        await self._upstream.close()
        self._journal.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _upkeep(self) -> None:
        told: tuple[str | None, str | None] = (None, None)
        while True:
            await asyncio.sleep(UPKEEP_S)
            self._journal.tick()
            if self._routes.refresh():
                log.info("routes_changed tasks=%d", len(self._routes.routes))
            faults = (self._journal.health.error, self._routes.error)
            if faults != told:
                told = faults
                level = logging.ERROR if any(faults) else logging.INFO
                log.log(level, "upkeep journal=%r routes=%r", *faults)


async def _options(scope: Scope, receive: Receive, send: Send) -> None:
    await start(send, 204, [(b"allow", b"GET, HEAD, POST, DELETE, OPTIONS")])
    await send({"type": "http.response.body", "body": b""})


def build(config: Config, runtime: Runtime) -> App:
    """The application that a config and a runtime describe. Raises ConfigError."""
    journal = JournalWriter(config.journal_dir, config.journal, runtime.worker)
    routes = RoutesFile(config.routes_file)
    keys = Keys(config.server.keys)
    limit = int(config.server.body_limit_mb * 1024 * 1024)
    upstream = Upstream(
        connect_timeout_s=config.teacher.connect_timeout_s,
        read_timeout_s=config.teacher.read_timeout_s,
    )
    pool = teacher_pool(config, litellm_url=runtime.litellm_url, litellm_key=runtime.litellm_key)
    teacher = Teacher(pool, upstream, config.teacher)
    return App(
        chat_completions=chat.ChatCompletions(
            keys=keys,
            body_limit=limit,
            routes=routes,
            teacher=teacher,
            student=Student(upstream),
            journal=journal,
        ),
        feedback_box=feedback.FeedbackBox(keys=keys, body_limit=limit, journal=journal),
        models=Models(keys=keys, teacher=teacher, created=int(time.time())),
        passed_through=passthrough.Passthrough(keys=keys, body_limit=limit, teacher=teacher),
        control_plane=control.ControlPlane(
            keys=keys,
            body_limit=limit,
            upstream=upstream,
            port=runtime.control_port,
            token=runtime.control_token,
        ),
        health=Health(version=version("understudy"), journal=journal, routes=routes),
        upstream=upstream,
        journal=journal,
        routes=routes,
    )
