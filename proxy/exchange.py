"""One exchange: a client's request, its answer, and the trace of both."""

from __future__ import annotations

import logging
import time
from typing import Any, Literal

import msgspec
import orjson

from proxy.http.asgi import Headers
from proxy.http.beside import LARGE, Beside
from proxy.observe.recorder import Recorder
from proxy.privacy import Privacy
from proxy.routing.decision import Decision
from proxy.surfaces.completion import Completion
from proxy.surfaces.surface import Request, Surface
from proxy.tokens import SpentTokens, tokens_of
from store.chat.shape import input_hash
from store.errors import RedactionError
from store.ids import new_id
from store.jsontext import JsonObject
from store.privacy.opted_out import without_content
from store.records import (
    Content,
    Outcome,
    Reason,
    RouteName,
    Trace,
)

_NO_TOKENS = SpentTokens(None, None)
HUNG_UP = 499  # the status of an exchange whose client hung up before an answer began

log = logging.getLogger(__name__)


class Arrival(msgspec.Struct, frozen=True):
    """When a request arrived, by both clocks."""

    at: float  # seconds since the epoch
    ticks: float  # time.perf_counter()

    @classmethod
    def now(cls) -> Arrival:
        return cls(time.time(), time.perf_counter())

    @property
    def ms(self) -> float:
        """Milliseconds since then."""
        return (time.perf_counter() - self.ticks) * 1000


class Exchange:
    """A request and its answer so far. It is recorded exactly once."""

    __slots__ = (
        "_privacy",
        "_recorder",
        "_redacted",
        "_request_content",
        "answer_bytes",
        "arrival",
        "beside",
        "body",
        "chat",
        "completion",
        "confidence",
        "content",
        "decision",
        "fingerprint",
        "first_chunk_ms",
        "headers",
        "key_hash",
        "provider",
        "query",
        "raw",
        "reason",
        "recorded",
        "route",
        "served_by",
        "status",
        "student_ms",
        "surface",
        "task",
        "tokens",
        "trace_id",
        "unread_tokens",
    )

    def __init__(
        self,
        recorder: Recorder,
        surface: Surface,
        privacy: Privacy,
        *,
        beside: Beside,
        arrival: Arrival,
        headers: Headers,
        query: bytes,
        request: Request,
        chat: JsonObject,
        key_hash: str | None,
        task: str | None,
        fingerprint: str,
        decision: Decision,
        content: Content = "full",
    ) -> None:
        """`headers`, `query`: as the client sent them. `chat`: the request's chat completion
        without redacted text, and `content` how much of it is to be kept.
        """
        self._recorder = recorder
        self._privacy = privacy
        self.beside = beside
        self.surface = surface
        self.trace_id = new_id()
        self.arrival = arrival
        self.headers = headers
        self.query = query
        self.raw = request.raw
        self.body = request.body
        self.chat = chat
        self.key_hash = key_hash
        self.task = task
        self.fingerprint = fingerprint
        self.decision = decision
        # as it goes on
        self.route: RouteName = "teacher" if decision.student is None else "student"
        self.reason: Reason = decision.reason
        self.served_by: Literal["teacher", "student"] | None = None
        self.status = HUNG_UP
        self.provider: str | None = None
        self.completion = Completion()
        self.answer_bytes = 0
        self.first_chunk_ms: float | None = None
        self.student_ms: float | None = None
        self.confidence: float | None = None
        self.content: Content = content  # how much of the texts goes into the trace
        self._request_content = content  # the same of the request alone
        self._redacted: Completion | None = None  # an answer that has been redacted
        self.recorded = False
        self.unread_tokens = 0  # about, of an answer that was too large to be read
        self.tokens = _NO_TOKENS  # known once it is recorded

    @property
    def stream(self) -> bool:
        """Whether the client wants server-sent events."""
        return bool(self.body.get("stream"))

    def fall_back(self, reason: Reason) -> None:
        """From the student to the teacher: forgets the student's answer."""
        self.route, self.reason = "fallback", reason
        self.completion, self.answer_bytes = Completion(), 0
        if self.content != "none":
            self.content = self._request_content

    def answer_headers(self) -> Headers:
        """The response headers that say who answered, and why."""
        headers = [
            (b"x-understudy-route", self.route.encode("ascii")),
            (b"x-understudy-reason", self.reason.encode("ascii")),
            (b"x-understudy-trace", self.trace_id.encode("ascii")),
        ]
        if self.task is not None:
            headers.append((b"x-understudy-task", self.task.encode("ascii")))
        if self.content != "full":
            headers.append((b"x-understudy-content", self.content.encode("ascii")))
        return headers

    # ---- the end -----------------------------------------------------------------------------

    async def finish(self, outcome: Outcome, error_type: str | None = None) -> None:
        """Redacts the answer as far as it came, and records the exchange. Once: later calls do
        nothing. What takes milliseconds runs beside the event loop.
        """
        if self.recorded:
            return
        if self._privacy.redacts:
            await self.redact_answer()
        if len(self.raw) + self.answer_bytes > LARGE:
            trace = await self.beside.run(self._readable_trace, outcome, error_type)
            self._record_trace(trace)
        else:
            self._record_trace(self._readable_trace(outcome, error_type))

    def finish_now(self, outcome: Outcome, error_type: str | None = None) -> None:
        """The same without waiting: an answer that cannot be redacted at once is not kept."""
        if self.recorded:
            return
        if self._needs_redaction:
            answer = self.completion
            try:
                self._keep_redacted(answer, self._privacy.messages_now(answer.messages))
            except RedactionError as error:
                self._drop_content(error)
        self._record_trace(self._readable_trace(outcome, error_type))

    async def redact_answer(self) -> None:
        """Redacts the answer, if it was not redacted yet. `finish` does it by itself."""
        if not self._needs_redaction:
            return
        answer = self.completion
        try:
            messages = await self._privacy.messages(answer.messages, self.answer_bytes)
        except RedactionError as error:
            self._drop_content(error)
        else:
            self._keep_redacted(answer, messages)

    @property
    def _needs_redaction(self) -> bool:
        return (
            self._privacy.redacts
            and self.content != "none"
            and self.completion is not self._redacted
            and bool(self.completion.messages)
        )

    def _keep_redacted(self, answer: Completion, messages: list[JsonObject]) -> None:
        if messages is not answer.messages:
            answer = msgspec.structs.replace(answer, messages=messages)
            self.content = "redacted"
        self.completion = self._redacted = answer

    def _drop_content(self, error: RedactionError) -> None:
        """Keeps no text at all rather than text that is redacted in part."""
        self.content = "none"
        log.error("content_dropped trace=%s error=%s", self.trace_id, error)

    def _record_trace(self, trace: Trace) -> None:
        if not self.recorded:
            self.recorded = True
            self._recorder.record(trace, self.headers)

    def _readable_trace(self, outcome: Outcome, error_type: str | None) -> Trace:
        try:
            trace = self._trace(outcome, error_type)
        except TypeError:  # an answer nested too deeply to be written: the trace goes without it
            self.completion = Completion()
            trace = self._trace(outcome, error_type or "unreadable_answer")
        return without_content(trace) if self.content == "none" else trace

    def _trace(self, outcome: Outcome, error_type: str | None) -> Trace:
        chat, completion, student = self.chat, self.completion, self.decision.student
        duration_ms = self.arrival.ms
        tools = chat.get("tools") or chat.get("functions")
        params = {name: value for name, value in chat.items() if name not in ("messages", "tools")}
        self.tokens = tokens = tokens_of(completion, chat, self.unread_tokens)
        return Trace(
            trace_id=self.trace_id,
            start_time=self.arrival.at,
            end_time=self.arrival.at + duration_ms / 1000,
            task=self.task,
            api=self.surface.api,
            operation_name=self.surface.operation_name,
            served_by=self.served_by,
            route=self.route,
            reason=self.reason,
            outcome=outcome,
            status_code=self.status,
            error_type=error_type or completion.error_type,
            stream=self.stream,
            provider_name=self.provider,
            request_model=chat["model"],
            response_model=completion.model,
            response_id=completion.response_id,
            student_id=student.student_id if student is not None else None,
            finish_reasons=completion.finish_reasons,
            duration_ms=duration_ms,
            time_to_first_chunk_ms=self.first_chunk_ms,
            student_ms=self.student_ms,
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cached_tokens=completion.tokens("prompt_tokens_details", "cached_tokens"),
            reasoning_tokens=completion.tokens("completion_tokens_details", "reasoning_tokens"),
            request_params=_json(params),
            tool_definitions=_json(tools) if tools else None,
            input_messages=_json(chat["messages"]),
            output_messages=_json(completion.messages) if completion.messages else None,
            input_hash=input_hash(chat["messages"]),
            fingerprint=self.fingerprint,
            confidence=self.confidence,
            content_bytes=len(self.raw) + self.answer_bytes,
            api_key_hash=self.key_hash,
            end_user=chat.get("user"),
            content=self.content,
            tokens_estimated=tokens.estimated,
        )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
