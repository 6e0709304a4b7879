"""`POST /v1/chat/completions`: one request from its arrival to its trace, top to bottom."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from proxy.asgi import JSON, Headers, Receive, Scope, Send, header, respond, start
from proxy.body import parse_chat_body, read_body
from proxy.completion import StudentCompletion
from proxy.errors import ApiError, internal
from proxy.headers import to_teacher, uncompressed
from proxy.keys import Keys
from proxy.relay import is_stream, relay_stream, relay_whole
from proxy.routing import decide
from proxy.student import Student
from proxy.tagging import TASK_HEADER, task_of, without_tag
from proxy.teacher import Teacher, refusal, teacher_body
from proxy.traces import HUNG_UP, Arrival, Exchange
from proxy.upstream import UpstreamError
from proxy.watch import ClientWatch
from store.journal import JournalWriter
from store.models import Outcome, Reason
from store.routes import RoutesFile
from store.shape import fingerprint
from store.student_wire import StudentAnswer
from store.verdicts import Route

PATH = "/v1/chat/completions"
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")

log = logging.getLogger(__name__)


class ChatCompletions:
    """Answers chat completions: by a task's student where it is certified, else by the teacher."""

    def __init__(
        self,
        *,
        keys: Keys,
        body_limit: int,
        routes: RoutesFile,
        teacher: Teacher,
        student: Student,
        journal: JournalWriter,
    ) -> None:
        self._keys = keys
        self._body_limit = body_limit
        self._routes = routes
        self._teacher = teacher
        self._student = student
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiError, without a trace, for what is no valid request."""
        arrival = Arrival.now()
        headers: Headers = scope["headers"]
        client = self._keys.authenticate(headers)
        raw = await read_body(receive, headers, self._body_limit)
        body = parse_chat_body(raw)
        task = task_of(header(headers, TASK_HEADER), body.get("metadata"), client.task)
        shape = fingerprint(body)
        exchange = Exchange(
            self._journal,
            arrival=arrival,
            body=body,
            request_bytes=len(raw),
            key_hash=client.key_hash,
            task=task,
            fingerprint=shape,
            decision=decide(task, shape, body, self._routes.routes),
        )
        with ClientWatch(receive) as watch:
            try:
                await self._answer(exchange, raw, headers, send)
            except ApiError as error:
                await _refuse(exchange, error, send)
            except asyncio.CancelledError:
                if not watch.gone:  # the proxy is stopping and has waited long enough
                    exchange.record(Outcome.ERROR, "stopped")
                    raise
                exchange.record(Outcome.CLIENT_GONE)
            except Exception as error:
                log.error("request_failed trace=%s", exchange.trace_id, exc_info=error)
                if exchange.status != HUNG_UP:  # begun: all that is left is to break it off
                    exchange.record(Outcome.ERROR, "internal")
                else:
                    await _refuse(exchange, internal(), send)

    async def _answer(self, exchange: Exchange, raw: bytes, headers: Headers, send: Send) -> None:
        route = exchange.decision.student
        if route is not None:
            answer = await self._ask_student(exchange, route)
            if answer is not None:
                await _serve_student(exchange, answer, route, send)
                return
        await self._ask_teacher(exchange, raw, headers, send)

    async def _ask_student(self, exchange: Exchange, route: Route) -> StudentAnswer | None:
        """The student's answer when it may be served."""
        asked = await self._student.ask(route, exchange.body)
        exchange.student_ms = asked.ms
        exchange.confidence = asked.confidence
        if asked.fault is None:
            return asked.answer
        exchange.fall_back(asked.fault)
        down = asked.fault in (Reason.STUDENT_DOWN, Reason.STUDENT_ERROR, Reason.STUDENT_SLOW)
        level = logging.WARNING if down else logging.DEBUG
        log.log(level, "fallback task=%s reason=%s", exchange.task, asked.fault)
        return None

    async def _ask_teacher(
        self, exchange: Exchange, raw: bytes, headers: Headers, send: Send
    ) -> None:
        body = exchange.body
        deployment = self._teacher.named(body["model"])
        exchange.provider = deployment.provider
        response = await self._teacher.ask(
            deployment,
            "POST",
            "/chat/completions",
            uncompressed(to_teacher(headers, deployment)),
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


async def _serve_student(
    exchange: Exchange, answer: StudentAnswer, route: Route, send: Send
) -> None:
    body: dict[str, Any] = exchange.body
    completion = StudentCompletion(
        answer,
        trace_id=exchange.trace_id,
        student_id=route.student_id or route.task,
        model=body["model"],
    )
    options = body.get("stream_options") or {}
    if exchange.stream:
        sent = completion.events(include_usage=bool(options.get("include_usage")))
        exchange.first_chunk_ms = exchange.arrival.ms
    else:
        sent = completion.whole()
    exchange.served_by = "student"
    exchange.status = 200
    exchange.completion = completion.completion()
    exchange.answer_bytes = len(sent)
    exchange.record(Outcome.COMPLETE)
    request_id = (b"x-request-id", f"req_{exchange.trace_id.replace('-', '')}".encode())
    if exchange.stream:
        await start(send, 200, [_EVENTS, request_id, *exchange.headers()])
        await send({"type": "http.response.body", "body": sent})
    else:
        await respond(send, 200, [JSON, request_id, *exchange.headers()], sent)


async def _refuse(exchange: Exchange, error: ApiError, send: Send) -> None:
    exchange.status = error.status
    exchange.record(Outcome.ERROR, error.code or error.type)
    await error.send(send, exchange.headers())
