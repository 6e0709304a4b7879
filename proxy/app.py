"""The ASGI application: which path is whose.

POST /v1/chat/completions   proxy.answering, through the surface proxy.surfaces.chat
POST /v1/responses          the same, through proxy.surfaces.responses
POST /v1/messages           the same, through proxy.surfaces.messages
POST /v1/completions        the same, through proxy.surfaces.text_completions
POST /v1/embeddings         the same, through proxy.surfaces.embeddings
*    /v1/responses/…        proxy.surfaces.responses.lookup
POST /v1/feedback           proxy.feedback
GET  /v1/models[/NAME]      proxy.status
*    /v1/…                  proxy.passthrough
*    /distill[/…]           proxy.control
GET  /health                proxy.status, for anybody
GET  /openapi.json          proxy.api_document, for anybody
GET  /metrics               proxy.observe.metrics_page
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxy import api_document, control, feedback, passthrough
from proxy.access.cors import PREFIX as CORS_PREFIX
from proxy.access.cors import Cors
from proxy.access.keys import Keys
from proxy.access.limits import Limits
from proxy.answering import Answering
from proxy.api_document import ApiDocument
from proxy.http.asgi import Handler, Receive, Scope, Send, start
from proxy.http.beside import Beside
from proxy.http.body import ClientGone
from proxy.http.errors import ApiError, internal, no_websocket, unknown_path, wrong_method
from proxy.http.headers import wants_websocket
from proxy.http.pages import with_page_headers
from proxy.observe import metrics_page
from proxy.observe.metrics import Metrics
from proxy.observe.metrics_page import MetricsPage
from proxy.observe.recorder import Recorder
from proxy.observe.telemetry import spans_to
from proxy.privacy import Privacy
from proxy.reading import HeldBytes
from proxy.status import Health, Models
from proxy.student import Student
from proxy.surfaces.chat.surface import ChatCompletions
from proxy.surfaces.embeddings import Embeddings
from proxy.surfaces.messages.surface import Messages
from proxy.surfaces.responses import lookup
from proxy.surfaces.responses.lookup import ResponsesLookup
from proxy.surfaces.responses.stored import StoredResponses
from proxy.surfaces.responses.surface import Responses
from proxy.surfaces.surface import Surface
from proxy.surfaces.text_completions import TextCompletions
from proxy.teacher import Teacher
from proxy.upkeep import Upkeep
from proxy.upstream.client import Upstream
from store.distribution import installed_version
from store.files.journal import JournalHealth, JournalWriter
from store.files.routes import RoutesFile
from store.process.control_page import ControlPage
from store.process.runtime import Runtime
from store.settings.config import Config
from store.settings.teachers import teacher_pool

SURFACES: tuple[type[Surface], ...] = (
    ChatCompletions,
    Responses,
    Messages,
    TextCompletions,
    Embeddings,
)

_NEVER = ("TRACE", "CONNECT")  # they reach no teacher: TRACE would show its key

# who answers below a path: the first prefix that a path begins with counts
Prefixes = Sequence[tuple[str, Handler]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OwnPath:
    """A path of the proxy's own: the methods that it takes, and who answers."""

    methods: tuple[str, ...]
    handler: Handler


class App:
    """The data plane of one process."""

    def __init__(
        self,
        *,
        keys: Keys,
        cors: Cors,
        answering: Mapping[str, Handler],
        own: Mapping[str, OwnPath],
        models: Handler,
        prefixes: Prefixes,
        control_plane: Handler,
        journal: JournalWriter,
        recorder: Recorder,
        upkeep: Upkeep,
    ) -> None:
        """`answering`: who answers a POST, by its path."""
        self._keys = keys
        self._cors = cors
        self._with_cors = cors.allows_some
        self._answering = answering
        self._own = own
        self._models = models
        self._prefixes = prefixes
        self._control_plane = control_plane
        self._journal = journal
        self._recorder = recorder
        self._upkeep = upkeep

    @property
    def journal_health(self) -> JournalHealth:
        """How the journal of this process is."""
        return self._journal.health

    @property
    def routes_digest(self) -> int:
        """Which version of the routes this process has."""
        return self._upkeep.routes_digest

    def refused(self, status: int) -> None:
        """Counts a refusal that this application was not asked for."""
        self._recorder.refused(status)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if not scope["path"].startswith(passthrough.PREFIX):
            send = with_page_headers(send)
        try:
            self._keys.check_host(scope["headers"])
            if scope["method"] == "GET" and wants_websocket(scope["headers"]):
                raise no_websocket()
            if self._with_cors and scope["path"].startswith(CORS_PREFIX):
                send = self._cors.readable(scope["headers"], send)
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
            return self._options
        if method in _NEVER:
            raise wrong_method(method, "GET, POST")
        if method == "POST" and path in self._answering:
            return self._answering[path]
        own = self._own.get(path)
        if own is not None:
            if method not in own.methods:
                raise wrong_method(method, own.methods[0])
            return own.handler
        if method in ("GET", "HEAD") and f"{path}/".startswith("/v1/models/"):
            return self._models
        for prefix, handler in self._prefixes:
            if path.startswith(prefix):
                return handler
        if f"{path}/".startswith(f"{control.PREFIX}/"):
            return self._control_plane
        raise unknown_path(method, path)

    async def _options(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Which methods there are. No OPTIONS reaches a teacher, with its key."""
        if not await self._cors.answer_preflight(scope, send):
            await start(send, 204, [(b"allow", b"GET, HEAD, POST, DELETE, OPTIONS")])
            await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        """From start to stop, as ASGI's lifespan says it."""
        await receive()
        await self._upkeep.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._upkeep.stop()
        await send({"type": "lifespan.shutdown.complete"})


def build(config: Config, runtime: Runtime) -> App:
    """The application that a config and a runtime describe. Raises ConfigError."""
    journal = JournalWriter(config.journal_dir, config.journal, runtime.worker)
    routes = RoutesFile(config.routes_file)
    cors = Cors(config.server.cors_origins)
    keys = Keys(config.server.keys, operator=runtime.control_token, cors=cors)
    limits = Limits(config.server.limits, config.server.keys, config.data_dir)
    limit = int(config.server.body_limit_mb * 1024 * 1024)
    upstream = Upstream(
        connect_timeout_s=config.teacher.connect_timeout_s,
        read_timeout_s=config.teacher.read_timeout_s,
    )
    pool = teacher_pool(config, litellm_url=runtime.litellm_url, litellm_key=runtime.litellm_key)
    teacher = Teacher(pool, upstream, config.teacher)
    privacy = Privacy(config.privacy)
    beside = Beside()
    held = HeldBytes(int(config.server.limits.in_flight_mb * 1024 * 1024))
    endpoint = config.telemetry.otlp_endpoint
    spans = spans_to(endpoint) if endpoint is not None else None
    metrics = Metrics()
    recorder = Recorder(journal, metrics, [spans] if spans is not None else [])
    stored = StoredResponses(config.responses_dir, config.responses_days)
    page = MetricsPage(
        metrics,
        keys=keys,
        limits=limits,
        journal=journal,
        folder=config.data_dir / metrics_page.FOLDER,
        worker=runtime.worker,
        workers=config.server.workers,
    )
    control_page = None if runtime.control_fd is None else ControlPage(runtime.control_fd)
    health = Health(
        version=installed_version(),
        journal=journal,
        routes=routes,
        data_dir=config.data_dir,
        control_page=control_page,
    )
    passed_through = passthrough.Passthrough(
        keys=keys, limits=limits, body_limit=limit, teacher=teacher, beside=beside
    )
    return App(
        keys=keys,
        cors=cors,
        answering={
            surface.path: Answering(
                surface,
                keys=keys,
                limits=limits,
                body_limit=limit,
                routes=routes,
                teacher=teacher,
                student=Student(upstream, privacy.placeholders),
                recorder=recorder,
                privacy=privacy,
                beside=beside,
                held=held,
            )
            for surface in _surfaces(stored)
        },
        own={
            "/health": OwnPath(("GET", "HEAD"), health),
            metrics_page.PATH: OwnPath(("GET", "HEAD"), page),
            api_document.PATH: OwnPath(("GET", "HEAD"), ApiDocument()),
            feedback.PATH: OwnPath(
                ("POST",),
                feedback.FeedbackIntake(
                    keys=keys,
                    limits=limits,
                    body_limit=limit,
                    journal=journal,
                    privacy=privacy,
                    beside=beside,
                ),
            ),
        },
        models=Models(keys=keys, teacher=teacher, created=int(time.time())),
        prefixes=(
            (
                lookup.PREFIX,
                ResponsesLookup(
                    keys=keys,
                    limits=limits,
                    body_limit=limit,
                    stored=stored,
                    passthrough=passed_through,
                    beside=beside,
                ),
            ),
            (passthrough.PREFIX, passed_through),
        ),
        control_plane=control.ControlPlaneGateway(
            keys=keys,
            limits=limits,
            body_limit=limit,
            upstream=upstream,
            port=runtime.control_port,
            token=runtime.control_token,
            page=control_page,
        ),
        journal=journal,
        recorder=recorder,
        upkeep=Upkeep(
            upstream=upstream,
            journal=journal,
            routes=routes,
            metrics=page,
            stored_responses=stored,
            spans=spans,
        ),
    )


def _surfaces(stored: StoredResponses) -> Sequence[Surface]:
    return [Responses(stored) if surface is Responses else surface() for surface in SURFACES]
