"""One exchange between a client and whoever answers, from its arrival to its trace."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from proxy.http.asgi import Headers
from proxy.observe.recorder import Recorder
from proxy.privacy import Privacy
from proxy.routing.decision import Decision
from proxy.surfaces.assemble import Completion
from proxy.surfaces.surface import Body, Surface
from store.chat.shape import input_hash
from store.errors import RedactionError
from store.ids import new_id
from store.privacy.opted_out import without_content
from store.records import (
    SCHEMA_VERSION,
    Content,
    Outcome,
    Reason,
    RouteName,
    Trace,
)

HUNG_UP = 499  # the status of an exchange whose client left before it had one

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request came, by both clocks."""

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
    """What is known of a request and its answer so far. It is recorded exactly once."""

    __slots__ = (
        "_asked",
        "_privacy",
        "_recorder",
        "_settled",
        "answer_bytes",
        "arrival",
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
        "reason",
        "recorded",
        "request_bytes",
        "route",
        "served_by",
        "status",
        "student_ms",
        "surface",
        "task",
        "trace_id",
    )

    def __init__(
        self,
        recorder: Recorder,
        surface: Surface,
        privacy: Privacy,
        *,
        arrival: Arrival,
        headers: Headers,
        body: Body,
        chat: Body,
        request_bytes: int,
        key_hash: str | None,
        task: str | None,
        fingerprint: str,
        decision: Decision,
        content: Content = "full",
    ) -> None:
        """`headers`, `body`: as the client sent them. `chat`: the surface's view of the body, and
        `content` how much of it is to be kept.
        """
        self._recorder = recorder
        self._privacy = privacy
        self.surface = surface
        self.trace_id = new_id()
        self.arrival = arrival
        self.headers = headers
        self.body = body
        self.chat = chat
        self.request_bytes = request_bytes
        self.key_hash = key_hash
        self.task = task
        self.fingerprint = fingerprint
        self.decision = decision
        # how it goes
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
        self._asked = content  # the same of the request alone
        self._settled: Completion | None = None  # an answer that was redacted
        self.recorded = False

    @property
    def stream(self) -> bool:
        """Whether the client asked for server-sent events."""
        return bool(self.body.get("stream"))

    def fall_back(self, reason: Reason) -> None:
        """The student was asked in vain: the teacher's turn."""
        self.route, self.reason = "fallback", reason
        self.completion, self.answer_bytes = Completion(), 0
        if self.content != "none":
            self.content = self._asked

    def answer_headers(self) -> Headers:
        """The response headers that say who answered, and why."""
        found = [
            (b"x-understudy-route", self.route.encode("ascii")),
            (b"x-understudy-reason", self.reason.encode("ascii")),
            (b"x-understudy-trace", self.trace_id.encode("ascii")),
        ]
        if self.task is not None:
            found.append((b"x-understudy-task", self.task.encode("ascii")))
        if self.content != "full":
            found.append((b"x-understudy-content", self.content.encode("ascii")))
        return found

    async def settle(self) -> None:
        """Redacts the answer, which must be all there, for the trace that is about to be recorded.

        Where that takes milliseconds, beside the event loop. An answer that was not settled is
        redacted by `record` if it can be done at once, and is not kept otherwise.
        """
        answer = self.completion
        if not self._privacy.redacts or self.recorded or self.content == "none":
            return
        try:
            said = await self._privacy.messages(answer.messages, self.answer_bytes)
        except RedactionError as error:
            self._drop_content(error)
        else:
            self._take_redacted(answer, said)

    def _redact(self) -> None:
        if not self._privacy.redacts or self.content == "none":
            return
        answer = self.completion
        if answer is self._settled or not answer.messages:
            return
        try:
            self._take_redacted(answer, self._privacy.messages_now(answer.messages))
        except RedactionError as error:
            self._drop_content(error)

    def _take_redacted(self, answer: Completion, said: list[dict[str, Any]]) -> None:
        if said is not answer.messages:
            answer = replace(answer, messages=said)
            self.content = "redacted"
        self.completion = self._settled = answer

    def _drop_content(self, error: RedactionError) -> None:
        """Nothing is kept that is redacted in part."""
        self.content = "none"
        log.error("content_dropped trace=%s error=%s", self.trace_id, error)

    def record(self, outcome: Outcome, error_type: str | None = None) -> None:
        """Records the exchange as it stands, the first time; later calls do nothing."""
        if self.recorded:
            return
        self.recorded = True
        self._redact()
        try:
            trace = self._trace(outcome, error_type)
        except TypeError:  # an answer nested too deeply to be written: the trace goes without it
            self.completion = Completion()
            trace = self._trace(outcome, error_type or "unreadable_answer")
        if self.content == "none":
            trace = without_content(trace)
        self._recorder.record(trace, self.headers)

    def _trace(self, outcome: Outcome, error_type: str | None) -> Trace:
        chat, completion, student = self.chat, self.completion, self.decision.student
        duration_ms = self.arrival.ms
        tools = chat.get("tools") or chat.get("functions")
        params = {name: value for name, value in chat.items() if name not in ("messages", "tools")}
        fields: dict[str, Any] = {
            "trace_id": self.trace_id,
            "start_time": self.arrival.at,
            "end_time": self.arrival.at + duration_ms / 1000,
            "task": self.task,
            "api": self.surface.api,
            "operation_name": self.surface.operation_name,
            "served_by": self.served_by,
            "route": self.route,
            "reason": self.reason,
            "outcome": outcome,
            "status_code": self.status,
            "error_type": error_type or completion.error_type,
            "stream": self.stream,
            "provider_name": self.provider,
            "request_model": chat["model"],
            "response_model": completion.model,
            "response_id": completion.response_id,
            "student_id": student.student_id if student is not None else None,
            "finish_reasons": completion.finish_reasons,
            "duration_ms": duration_ms,
            "time_to_first_chunk_ms": self.first_chunk_ms,
            "student_ms": self.student_ms,
            "input_tokens": completion.tokens("prompt_tokens"),
            "output_tokens": completion.tokens("completion_tokens"),
            "cached_tokens": completion.tokens("prompt_tokens_details", "cached_tokens"),
            "reasoning_tokens": completion.tokens("completion_tokens_details", "reasoning_tokens"),
            "request_params": _json(params),
            "tool_definitions": _json(tools) if tools else None,
            "input_messages": _json(chat["messages"]),
            "output_messages": _json(completion.messages) if completion.messages else None,
            "input_hash": input_hash(chat["messages"]),
            "fingerprint": self.fingerprint,
            "confidence": self.confidence,
            "content_bytes": self.request_bytes + self.answer_bytes,
            "api_key_hash": self.key_hash,
            "end_user": chat.get("user"),
            "source": "proxy",
            "cost_usd": None,
            "content": self.content,
            "schema_version": SCHEMA_VERSION,
        }
        return Trace.of(fields)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
