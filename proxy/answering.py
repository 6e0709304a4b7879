"""One request from its arrival to its trace, top to bottom, through whichever surface it came."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from proxy.access.keys import Client, Keys
from proxy.access.limits import Limits
from proxy.exchange import HUNG_UP, Arrival, Exchange
from proxy.http.asgi import JSON, Headers, Receive, Scope, Send, header, respond, start
from proxy.http.body import body_size, read_body
from proxy.http.errors import ApiError, internal
from proxy.http.headers import to_teacher
from proxy.http.watch import ClientWatch
from proxy.observe.recorder import Recorder
from proxy.privacy import Privacy
from proxy.relay import is_stream, relay_stream, relay_whole
from proxy.routing.decision import Decision, decide
from proxy.routing.tagging import TASK_HEADER, task_of, without_tag
from proxy.student import Student
from proxy.surfaces.assemble import Completion
from proxy.surfaces.surface import Body, Served, StudentSurface, Surface
from proxy.teacher import Teacher, refusal, teacher_body
from proxy.upstream.client import UpstreamError
from store.chat.shape import fingerprint
from store.chat.student_wire import StudentAnswer, reply_of
from store.errors import RedactionError
from store.files.routes import RoutesFile
from store.ids import new_id
from store.records import (
    Content,
    Outcome,
    Reason,
    Route,
)

_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_TEACHER_PREFIX = "/v1"  # part of a deployment's address

log = logging.getLogger(__name__)


class Memory(Protocol):
    """Keeps students' answers for an API that lets clients come back to them."""

    def recall(
        self, raw: bytes, body: Body, chat: Body, key_hash: str | None
    ) -> tuple[bytes, Body, Body]:
        """The request, its body and its chat view, with what was kept in place of its name.

        Raises ApiError when that is not there.
        """

    def may_keep(self, body: Body, content: Content) -> bool:
        """Whether an answer to this may be kept, where the client wants that."""

    def keep(self, exchange: Exchange, served: Served) -> bool:
        """Keeps a student's answer where the client wants that; False: it could not."""


class Answering:
    """Answers a surface's requests: by a task's student where it is certified, else the teacher."""

    def __init__(
        self,
        surface: Surface,
        *,
        keys: Keys,
        limits: Limits,
        body_limit: int,
        routes: RoutesFile,
        teacher: Teacher,
        student: Student,
        recorder: Recorder,
        privacy: Privacy,
        memory: Memory | None = None,
    ) -> None:
        self._surface = surface
        self._student_surface = surface if isinstance(surface, StudentSurface) else None
        self._memory = memory
        self._keys = keys
        self._limits = limits
        self._body_limit = body_limit
        self._routes = routes
        self._teacher = teacher
        self._student = student
        self._recorder = recorder
        self._privacy = privacy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers what is no valid request, and what is over a limit, without a trace."""
        arrival = Arrival.now()
        headers: Headers = scope["headers"]
        try:
            client = self._keys.authenticate(headers)
            ticket = self._limits.admit(client, body_size(headers, self._body_limit))
        except ApiError as error:
            await self._refuse(error, send)
            return
        tokens = 0
        try:
            raw = await read_body(receive, headers, self._body_limit)
            raw, exchange = await self._take(arrival, client, headers, raw)
            with ClientWatch(scope) as watch:
                await self._see_through(exchange, raw, scope["query_string"], send, watch)
            tokens = exchange.completion.total_tokens
        except ApiError as error:
            await self._refuse(error, send)
        finally:
            ticket.release(tokens)

    async def _take(
        self, arrival: Arrival, client: Client, headers: Headers, raw: bytes
    ) -> tuple[bytes, Exchange]:
        """The request as the teacher is to get it, understood and routed. Raises ApiError."""
        surface = self._surface
        body = surface.parse(raw)
        chat = surface.chat_view(body)
        if self._memory is not None:
            raw, body, chat = self._memory.recall(raw, body, chat, client.key_hash)
        task = task_of(header(headers, TASK_HEADER), body.get("metadata"), client.task)
        kept = self._privacy.keeps(surface.api, body, headers, client)
        content: Content = "full" if kept else "none"
        failed = False
        if self._privacy.redacts:
            chat, content, failed = await self._redacted(chat, content, len(raw))
        shape = fingerprint(chat)
        decision = self._decide(task, shape, chat)
        if decision.student is not None:
            if failed:
                decision = Decision(Reason.NOT_REDACTED)
            elif self._memory is not None and not self._memory.may_keep(body, content):
                decision = Decision(Reason.NOT_KEPT)
        exchange = Exchange(
            self._recorder,
            surface,
            self._privacy,
            arrival=arrival,
            headers=headers,
            body=body,
            chat=chat,
            request_bytes=len(raw),
            key_hash=client.key_hash,
            task=task,
            fingerprint=shape,
            decision=decision,
            content=content,
        )
        return raw, exchange

    async def _redacted(
        self, chat: Body, content: Content, size: int
    ) -> tuple[Body, Content, bool]:
        """The view that all but the teacher look at, how much of it is kept, and whether that
        failed: it is then as the client sent it, and nothing is kept.
        """
        try:
            redacted = await self._privacy.view(chat, size)
        except RedactionError as error:
            log.error("content_dropped error=%s", error)
            return chat, "none", True
        if redacted is not chat and content == "full":
            content = "redacted"
        return redacted, content, False

    async def _see_through(
        self, exchange: Exchange, raw: bytes, query: bytes, send: Send, watch: ClientWatch
    ) -> None:
        """Answers, and records the exchange however it ends."""
        try:
            await self._answer(exchange, raw, query, send)
        except ApiError as error:
            await self._refuse(error, send, exchange)
        except asyncio.CancelledError:
            if not watch.gone:  # the proxy is stopping and has waited long enough
                exchange.record(Outcome.ERROR, "stopped")
                raise
            try:
                await exchange.settle()
            finally:
                exchange.record(Outcome.CLIENT_GONE)
        except Exception as error:
            log.error("request_failed trace=%s", exchange.trace_id, exc_info=error)
            if exchange.status != HUNG_UP:  # begun: all that is left is to break it off
                exchange.record(Outcome.ERROR, "internal")
            else:
                await self._refuse(internal(), send, exchange)

    def _decide(self, task: str | None, shape: str, chat: Body) -> Decision:
        if task is None or self._student_surface is not None:
            return decide(task, shape, chat, self._routes.routes)
        return Decision(Reason.OTHER_API)

    async def _answer(self, exchange: Exchange, raw: bytes, query: bytes, send: Send) -> None:
        route = exchange.decision.student
        if route is not None:
            answer = await self._ask_student(exchange, route)
            if answer is not None and await self._serve_student(exchange, answer, route, send):
                return
        await self._ask_teacher(exchange, raw, query, send)

    async def _ask_student(self, exchange: Exchange, route: Route) -> StudentAnswer | None:
        """The student's answer when it may be served."""
        reply = await self._student.ask(route, exchange.chat)
        exchange.student_ms = reply.ms
        exchange.confidence = reply.confidence
        if reply.fault is None:
            assert reply.answer is not None, "no fault means that an answer came"
            return reply_of(reply.answer, exchange.chat)
        exchange.fall_back(reply.fault)
        down = reply.fault in (Reason.STUDENT_DOWN, Reason.STUDENT_ERROR, Reason.STUDENT_SLOW)
        log.log(
            logging.WARNING if down else logging.DEBUG,
            "fallback trace=%s task=%s reason=%s",
            *(exchange.trace_id, exchange.task, reply.fault),
        )
        return None

    async def _serve_student(
        self, exchange: Exchange, answer: StudentAnswer, route: Route, send: Send
    ) -> bool:
        """Sends the student's answer; False: it may not be served after all."""
        surface = self._student_surface
        assert surface is not None, "decided by _decide"
        served = surface.student_answer(
            answer,
            exchange.body,
            trace_id=exchange.trace_id,
            student_id=route.student_id or route.task,
        )
        sent = served.events() if exchange.stream else served.whole()
        exchange.completion = served.completion()
        exchange.answer_bytes = len(sent)
        await exchange.settle()
        if self._memory is not None and not self._memory.keep(exchange, served):
            exchange.completion, exchange.answer_bytes = Completion(), 0
            exchange.fall_back(Reason.NOT_KEPT)
            return False
        if exchange.stream:
            exchange.first_chunk_ms = exchange.arrival.ms
        exchange.served_by = "student"
        exchange.status = 200
        exchange.record(Outcome.COMPLETE)
        request_id = (surface.request_id, _request_id(exchange.trace_id).encode())
        if exchange.stream:
            await start(send, 200, [_EVENTS, request_id, *exchange.answer_headers()])
            await send({"type": "http.response.body", "body": sent})
        else:
            await respond(send, 200, [JSON, request_id, *exchange.answer_headers()], sent)
        return True

    async def _ask_teacher(self, exchange: Exchange, raw: bytes, query: bytes, send: Send) -> None:
        body = exchange.body
        teacher = self._teacher
        choose = teacher.for_any if self._student_surface is None else teacher.named
        model = body.get("model")  # None: something else in the body names it
        deployment = self._teacher.default() if model is None else choose(model)
        exchange.provider = deployment.provider
        path = self._surface.path.removeprefix(_TEACHER_PREFIX)
        response = await self._teacher.ask(
            deployment,
            "POST",
            f"{path}?{query.decode('latin-1')}" if query else path,
            to_teacher(exchange.headers, deployment, readable=True),
            teacher_body(raw, body, without_tag(body), deployment),
        )
        exchange.served_by = "teacher"
        try:
            if is_stream(response, asked=exchange.stream):
                await relay_stream(response, exchange, send)
            else:
                await relay_whole(response, exchange, send)
        except UpstreamError as error:
            refused = refusal(error, deployment)
            exchange.status = refused.status
            exchange.record(Outcome.TEACHER_BROKE, refused.code)
            raise refused from None
        finally:
            response.close()

    async def _refuse(self, error: ApiError, send: Send, exchange: Exchange | None = None) -> None:
        error.request_id = _request_id(new_id() if exchange is None else exchange.trace_id)
        headers = [JSON, (self._surface.request_id, error.request_id.encode()), *error.headers]
        if exchange is None:
            self._recorder.refused(error.status)
        else:
            exchange.status = error.status
            exchange.record(Outcome.ERROR, error.code or error.type)
            headers += exchange.answer_headers()
        await respond(send, error.status, headers, self._surface.error(error))


def _request_id(trace_id: str) -> str:
    return f"req_{trace_id.replace('-', '')}"
