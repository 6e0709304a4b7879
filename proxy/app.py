"""The ASGI application: which path is whose, and what lives as long as the process.

POST /v1/chat/completions   proxy.answering, through the surface proxy.surfaces.chat
POST /v1/responses          the same, through proxy.surfaces.responses
POST /v1/messages           the same, through proxy.surfaces.messages
POST /v1/completions        the same, through proxy.surfaces.text_completions
POST /v1/embeddings         the same, through proxy.surfaces.embeddings
*    /v1/responses/…        proxy.responses_lookup
POST /v1/feedback           proxy.feedback
GET  /v1/models[/NAME]      proxy.status
*    /v1/…                  proxy.passthrough
*    /distill[/…]           proxy.control
GET  /health                proxy.status, for anybody
GET  /openapi.json          proxy.api_document, for anybody
GET  /metrics               proxy.observe.metrics_page
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from proxy import api_document, control, feedback, passthrough, responses_lookup
from proxy.access.keys import Keys
from proxy.access.limits import Limits
from proxy.answering import Answering
from proxy.api_document import ApiDocument
from proxy.http.asgi import Handler, Receive, Scope, Send, start
from proxy.http.body import ClientGone
from proxy.http.errors import ApiError, internal, unknown_path, wrong_method
from proxy.observe import metrics_page
from proxy.observe.metrics import Metrics
from proxy.observe.metrics_page import MetricsPage
from proxy.observe.recorder import Recorder
from proxy.observe.telemetry import Spans, spans_to
from proxy.privacy import Privacy
from proxy.responses_lookup import ResponsesLookup
from proxy.status import Health, Models
from proxy.stored_responses import StoredResponses
from proxy.student import Student
from proxy.surfaces.chat.surface import ChatCompletions
from proxy.surfaces.embeddings import Embeddings
from proxy.surfaces.messages.surface import Messages
from proxy.surfaces.responses.surface import Responses
from proxy.surfaces.surface import Surface
from proxy.surfaces.text_completions import TextCompletions
from proxy.teacher import Teacher
from proxy.upstream.client import Upstream
from store.distribution import installed_version
from store.files.journal import JournalWriter
from store.files.routes import RoutesFile
from store.process.runtime import Runtime
from store.settings.config import Config
from store.settings.teachers import teacher_pool

SURFACES: tuple[Surface, ...] = (
    ChatCompletions(),
    Responses(),
    Messages(),
    TextCompletions(),
    Embeddings(),
)
UPKEEP_S = 0.25  # how often the journal is sealed and the routes are looked at

log = logging.getLogger(__name__)


class App:
    """The data plane of one process."""

    def __init__(
        self,
        *,
        answering: Mapping[str, Handler],
        feedback_box: Handler,
        lookup: Handler,
        models: Handler,
        passed_through: Handler,
        control_plane: Handler,
        health: Handler,
        metrics: MetricsPage,
        recorder: Recorder,
        spans: Spans | None,
        stored_responses: StoredResponses,
        upstream: Upstream,
        journal: JournalWriter,
        routes: RoutesFile,
    ) -> None:
        """`answering`: who answers a POST, by its path."""
        self._answering = answering
        self._models = models
        self._control_plane = control_plane
        # who answers what is below a path; the first that fits
        self._below = (
            (responses_lookup.PREFIX, lookup),
            (passthrough.PREFIX, passed_through),
        )
        # paths that are ours alone: the methods that they take, and who answers
        self._ours: dict[str, tuple[tuple[str, ...], Handler]] = {
            "/health": (("GET", "HEAD"), health),
            metrics_page.PATH: (("GET", "HEAD"), metrics),
            api_document.PATH: (("GET", "HEAD"), ApiDocument()),
            feedback.PATH: (("POST",), feedback_box),
        }
        self._metrics = metrics
        self._recorder = recorder
        self._spans = spans
        self._stored_responses = stored_responses
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
            self._recorder.refused(error.status)
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
        if method == "POST" and path in self._answering:
            return self._answering[path]
        if path in self._ours:
            methods, handler = self._ours[path]
            if method not in methods:
                raise wrong_method(method, methods[0])
            return handler
        if method in ("GET", "HEAD") and f"{path}/".startswith("/v1/models/"):
            return self._models
        for prefix, handler in self._below:
            if path.startswith(prefix):
                return handler
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
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _upkeep(self) -> None:
        told: tuple[str | None, str | None] = (None, None)
        sweeping: asyncio.Task[None] | None = None
        while True:
            await asyncio.sleep(UPKEEP_S)
            self._journal.tick()
            self._metrics.tick()
            if (sweeping is None or sweeping.done()) and self._stored_responses.sweep_is_due():
                sweeping = asyncio.create_task(asyncio.to_thread(self._stored_responses.sweep))
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
    limits = Limits(config.server.limits, config.server.keys, config.data_dir)
    limit = int(config.server.body_limit_mb * 1024 * 1024)
    upstream = Upstream(
        connect_timeout_s=config.teacher.connect_timeout_s,
        read_timeout_s=config.teacher.read_timeout_s,
    )
    pool = teacher_pool(config, litellm_url=runtime.litellm_url, litellm_key=runtime.litellm_key)
    teacher = Teacher(pool, upstream, config.teacher)
    privacy = Privacy(config.privacy)
    student = Student(upstream, privacy.placeholders)
    metrics = Metrics()
    endpoint = config.telemetry.otlp_endpoint
    spans = spans_to(endpoint) if endpoint is not None else None
    recorder = Recorder(journal, metrics, [spans] if spans is not None else [])
    stored = StoredResponses(config.responses_dir, config.responses_days)
    passed_through = passthrough.Passthrough(
        keys=keys, limits=limits, body_limit=limit, teacher=teacher
    )
    answering = {
        surface.path: Answering(
            surface,
            keys=keys,
            limits=limits,
            body_limit=limit,
            routes=routes,
            teacher=teacher,
            student=student,
            recorder=recorder,
            privacy=privacy,
            memory=stored if surface.api == "responses" else None,
        )
        for surface in SURFACES
    }
    return App(
        answering=answering,
        feedback_box=feedback.FeedbackBox(
            keys=keys, body_limit=limit, journal=journal, privacy=privacy
        ),
        models=Models(keys=keys, teacher=teacher, created=int(time.time())),
        lookup=ResponsesLookup(
            keys=keys, body_limit=limit, stored=stored, passthrough=passed_through
        ),
        passed_through=passed_through,
        control_plane=control.ControlPlane(
            keys=keys,
            body_limit=limit,
            upstream=upstream,
            port=runtime.control_port,
            token=runtime.control_token,
        ),
        metrics=MetricsPage(
            metrics,
            keys=keys,
            limits=limits,
            journal=journal,
            folder=config.data_dir / metrics_page.FOLDER,
            worker=runtime.worker,
            workers=config.server.workers,
        ),
        health=Health(
            version=installed_version(),
            journal=journal,
            routes=routes,
            data_dir=config.data_dir,
        ),
        recorder=recorder,
        spans=spans,
        stored_responses=stored,
        upstream=upstream,
        journal=journal,
        routes=routes,
    )
