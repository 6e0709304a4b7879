"""One request from its arrival to its trace, top to bottom, whichever surface it came through."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from urllib.parse import quote

from proxy.access.keys import Client, Keys
from proxy.access.limits import Limits
from proxy.exchange import HUNG_UP, Arrival, Exchange
from proxy.http.asgi import JSON, Headers, Receive, Scope, Send, header, respond, start
from proxy.http.beside import LARGE, Beside
from proxy.http.body import read_decoded
from proxy.http.errors import ApiError, internal, request_id_of
from proxy.http.headers import to_teacher
from proxy.http.watch import ClientWatch
from proxy.observe.recorder import Recorder
from proxy.privacy import Privacy
from proxy.reading import HeldBytes
from proxy.relay import is_stream, relay_stream, relay_whole
from proxy.routing.decision import Decision, decide
from proxy.routing.tagging import TASK_HEADER, task_of, without_tag
from proxy.student import Student
from proxy.surfaces.surface import Request, Surface
from proxy.teacher import Teacher, is_repeatable, refusal, teacher_body
from proxy.upstream.errors import UpstreamError
from proxy.upstream.response import Response
from store.chat.shape import fingerprint
from store.chat.student_wire import StudentAnswer
from store.errors import RedactionError
from store.files.routes import RoutesFile
from store.ids import new_id
from store.jsontext import JsonObject
from store.records import Content, Outcome, Reason, Route
from store.settings.teachers import Deployment

_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_TEACHER_PREFIX = "/v1"  # part of a deployment's address

log = logging.getLogger(__name__)


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
        beside: Beside,
        held: HeldBytes,
    ) -> None:
        """`held`: what the answers of all surfaces may hold in memory."""
        self._surface = surface
        self._keys = keys
        self._limits = limits
        self._body_limit = body_limit
        self._routes = routes
        self._teacher = teacher
        self._student = student
        self._recorder = recorder
        self._privacy = privacy
        self._beside = beside
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers. A request that is invalid or over a limit leaves no trace."""
        arrival = Arrival.now()
        headers: Headers = scope["headers"]
        try:
            client = self._keys.authenticate(headers)
            ticket = self._limits.admit(client)
        except ApiError as error:
            await self._refuse(error, send)
            return
        tokens = 0
        try:
            raw = await read_decoded(scope, receive, self._body_limit, arrived=ticket.arrived)
            if len(raw) > LARGE:
                request = await self._beside.run(self._surface.read_request, raw, client.key_hash)
            else:
                request = self._surface.read_request(raw, client.key_hash)
            exchange = await self._exchange(arrival, client, scope, request)
            with ClientWatch(scope) as watch:
                await self._answer_and_record(exchange, send, watch)
            tokens = exchange.tokens.total
        except ApiError as error:
            await self._refuse(error, send)
        finally:
            ticket.release(tokens)

    async def _exchange(
        self, arrival: Arrival, client: Client, scope: Scope, request: Request
    ) -> Exchange:
        """The request with its task, its route, and how much of it is kept. Raises ApiError."""
        surface, body, chat = self._surface, request.body, request.chat
        headers: Headers = scope["headers"]
        task = task_of(header(headers, TASK_HEADER), body.get("metadata"), client.task)
        kept = self._privacy.keeps(surface.api, body, headers, client)
        content: Content = "full" if kept else "none"
        failed = False
        if self._privacy.redacts:
            chat, content, failed = await self._redacted(chat, content, len(request.raw))
        if len(request.raw) > LARGE:
            shape, decision = await self._beside.run(self._decide, task, chat)
        else:
            shape, decision = self._decide(task, chat)
        if decision.student is not None:
            if failed:
                decision = Decision(Reason.NOT_REDACTED)
            elif not surface.may_keep(body, content):
                decision = Decision(Reason.NOT_KEPT)
        return Exchange(
            self._recorder,
            surface,
            self._privacy,
            beside=self._beside,
            arrival=arrival,
            headers=headers,
            query=scope["query_string"],
            request=request,
            chat=chat,
            key_hash=client.key_hash,
            task=task,
            fingerprint=shape,
            decision=decision,
            content=content,
        )

    async def _redacted(
        self, chat: JsonObject, content: Content, size: int
    ) -> tuple[JsonObject, Content, bool]:
        """The redacted chat completion, how much of it is kept, and whether the redaction failed.

        If it failed, the chat completion is unredacted, and nothing of it is kept.
        """
        try:
            redacted = await self._privacy.view(chat, size)
        except RedactionError as error:
            log.error("content_dropped error=%s", error)
            return chat, "none", True
        if redacted is not chat and content == "full":
            content = "redacted"
        return redacted, content, False

    def _decide(self, task: str | None, chat: JsonObject) -> tuple[str, Decision]:
        """The request's fingerprint, and who is to answer it."""
        shape = fingerprint(chat)
        if task is None or self._surface.for_students:
            return shape, decide(task, shape, chat, self._routes.routes)
        return shape, Decision(Reason.OTHER_API)

    async def _answer_and_record(self, exchange: Exchange, send: Send, watch: ClientWatch) -> None:
        """Answers, and records the exchange however it ends."""
        try:
            await self._answer(exchange, send)
        except ApiError as error:
            await self._refuse(error, send, exchange)
        except asyncio.CancelledError:
            if not watch.gone:  # the proxy is stopping and has waited long enough
                exchange.finish_now(Outcome.ERROR, "stopped")
                raise
            try:
                await exchange.finish(Outcome.CLIENT_GONE)
            finally:
                exchange.finish_now(Outcome.CLIENT_GONE)  # only if that was cancelled as well
        except Exception as error:
            log.error("request_failed trace=%s", exchange.trace_id, exc_info=error)
            if exchange.status != HUNG_UP:  # the answer has begun: it can only be broken off
                exchange.finish_now(Outcome.ERROR, "internal")
            else:
                await self._refuse(internal(), send, exchange)

    async def _answer(self, exchange: Exchange, send: Send) -> None:
        route = exchange.decision.student
        if route is not None:
            answer = await self._ask_student(exchange, route)
            if answer is not None and await self._serve_student(exchange, answer, route, send):
                return
        await self._ask_teacher(exchange, send)

    async def _ask_student(self, exchange: Exchange, route: Route) -> StudentAnswer | None:
        """The student's answer if it may be served."""
        reply = await self._student.ask(route, exchange.chat)
        exchange.student_ms = reply.ms
        exchange.confidence = reply.confidence
        if reply.fault is None:
            return reply.served
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
        """Sends the student's answer; False if it may not be served after all."""
        surface = self._surface
        written = surface.write_answer(
            answer,
            exchange.body,
            trace_id=exchange.trace_id,
            student_id=route.student_id or route.task,
        )
        sent = written.events() if exchange.stream else written.whole()
        exchange.completion = written.completion()
        exchange.answer_bytes = len(sent)
        await exchange.redact_answer()  # which decides whether it may be kept
        if not surface.keep_answer(
            written,
            exchange.body,
            exchange.content,
            trace_id=exchange.trace_id,
            key_hash=exchange.key_hash,
        ):
            exchange.fall_back(Reason.NOT_KEPT)
            return False
        if exchange.stream:
            exchange.first_chunk_ms = exchange.arrival.ms
        exchange.served_by = "student"
        exchange.status = 200
        await exchange.finish(Outcome.COMPLETE)
        request_id = (surface.request_id, request_id_of(exchange.trace_id).encode())
        if exchange.stream:
            await start(send, 200, [_EVENTS, request_id, *exchange.answer_headers()])
            await send({"type": "http.response.body", "body": sent})
        else:
            await respond(send, 200, [JSON, request_id, *exchange.answer_headers()], sent)
        return True

    async def _ask_teacher(self, exchange: Exchange, send: Send) -> None:
        body = exchange.body
        model, earlier = body.get("model"), body.get("previous_response_id")
        deployment = self._teacher.deployment(model, any_model=self._surface.any_model)
        if earlier is not None and (known := self._teacher.continuing(earlier, model)):
            deployment = await self._knowing(exchange, known)
        exchange.provider = deployment.provider
        response = await self._post(exchange, deployment)
        exchange.served_by = "teacher"
        try:
            try:
                await self._relay(response, exchange, send)
            except UpstreamError as error:
                response.close()
                if not is_repeatable(body) or not await self._teacher.came_back(deployment, error):
                    raise
                response = await self._post(exchange, deployment)
                await self._relay(response, exchange, send)
        except UpstreamError as error:
            refused = refusal(error, deployment)
            exchange.status = refused.status
            await exchange.finish(Outcome.TEACHER_BROKE, refused.code)
            raise refused from None
        finally:
            response.close()
            if exchange.surface.api == "responses":
                self._teacher.remember(exchange.completion.response_id, deployment)

    def _relay(self, response: Response, exchange: Exchange, send: Send) -> Awaitable[object]:
        """Passes the answer on. Raises UpstreamError before the client has seen anything of it."""
        relay = relay_stream if is_stream(response, asked=exchange.stream) else relay_whole
        return relay(response, exchange, send, self._held)

    async def _knowing(self, exchange: Exchange, deployments: Sequence[Deployment]) -> Deployment:
        """The first of these that knows the response that the request goes on from.

        Where none says so, the first one, whose own words the client then gets.
        """
        if len(deployments) > 1:
            path = f"/responses/{quote(str(exchange.body['previous_response_id']), safe='')}"
            for deployment in deployments:
                headers = to_teacher([], deployment, readable=True)
                try:
                    response = await self._teacher.ask(deployment, "GET", path, headers, None)
                except ApiError:
                    continue  # another one may know it
                response.close()
                if response.status == 200:
                    return deployment
        return deployments[0]

    def _post(self, exchange: Exchange, deployment: Deployment) -> Awaitable[Response]:
        """The deployment's answer to the request. Raises ApiError."""
        if len(exchange.raw) > LARGE:
            return self._post_large(exchange, deployment)
        return self._send(exchange, deployment, _teacher_body(exchange, deployment))

    async def _post_large(self, exchange: Exchange, deployment: Deployment) -> Response:
        body = await self._beside.run(_teacher_body, exchange, deployment)
        return await self._send(exchange, deployment, body)

    def _send(self, exchange: Exchange, deployment: Deployment, body: bytes) -> Awaitable[Response]:
        path = self._surface.path.removeprefix(_TEACHER_PREFIX)
        query = exchange.query
        return self._teacher.ask(
            deployment,
            "POST",
            f"{path}?{query.decode('latin-1')}" if query else path,
            to_teacher(exchange.headers, deployment, readable=True),
            body,
            repeatable=not deployment.direct and is_repeatable(exchange.body),
        )

    async def _refuse(self, error: ApiError, send: Send, exchange: Exchange | None = None) -> None:
        error.request_id = request_id_of(new_id() if exchange is None else exchange.trace_id)
        headers = [JSON, (self._surface.request_id, error.request_id.encode()), *error.headers]
        if exchange is None:
            self._recorder.refused(error.status)
        else:
            exchange.status = error.status
            exchange.finish_now(Outcome.ERROR, error.code or error.type)
            headers += exchange.answer_headers()
        await respond(send, error.status, headers, self._surface.write_error(error))


def _teacher_body(exchange: Exchange, deployment: Deployment) -> bytes:
    return teacher_body(exchange.raw, exchange.body, without_tag(exchange.body), deployment)
