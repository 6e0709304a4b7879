"""One exchange between a client and whoever answers, from its arrival to its trace."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from proxy.asgi import Headers
from proxy.assemble import Completion
from proxy.routing import Decision
from store.journal import JournalWriter
from store.models import Outcome, Reason, RouteName, Trace, new_id
from store.shape import input_hash

HUNG_UP = 499  # the status of an exchange whose client left before it had one


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
    """What is known of a chat completion so far. It is journalled exactly once."""

    __slots__ = (
        "_journal",
        "answer_bytes",
        "arrival",
        "body",
        "completion",
        "confidence",
        "decision",
        "fingerprint",
        "first_chunk_ms",
        "journalled",
        "key_hash",
        "provider",
        "reason",
        "request_bytes",
        "route",
        "served_by",
        "status",
        "student_ms",
        "task",
        "trace_id",
    )

    def __init__(
        self,
        journal: JournalWriter,
        *,
        arrival: Arrival,
        body: dict[str, Any],
        request_bytes: int,
        key_hash: str | None,
        task: str | None,
        fingerprint: str,
        decision: Decision,
    ) -> None:
        self._journal = journal
        self.trace_id = new_id()
        self.arrival = arrival
        self.body = body
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
        self.journalled = False

    @property
    def stream(self) -> bool:
        """Whether the client asked for server-sent events."""
        return bool(self.body.get("stream"))

    def fall_back(self, reason: Reason) -> None:
        """The student was asked in vain: the teacher's turn."""
        self.route, self.reason = "fallback", reason

    def headers(self) -> Headers:
        """The response headers that say who answered, and why."""
        found = [
            (b"x-understudy-route", self.route.encode("ascii")),
            (b"x-understudy-reason", self.reason.encode("ascii")),
            (b"x-understudy-trace", self.trace_id.encode("ascii")),
        ]
        if self.task is not None:
            found.append((b"x-understudy-task", self.task.encode("ascii")))
        return found

    def record(self, outcome: Outcome, error_type: str | None = None) -> None:
        """Journals the exchange as it stands, the first time; later calls do nothing."""
        if self.journalled:
            return
        self.journalled = True
        try:
            trace = self._trace(outcome, error_type)
        except TypeError:  # an answer nested too deeply to be written: the trace goes without it
            self.completion = Completion()
            trace = self._trace(outcome, error_type or "unreadable_answer")
        self._journal.append(trace)

    def _trace(self, outcome: Outcome, error_type: str | None) -> Trace:
        body, completion, student = self.body, self.completion, self.decision.student
        duration_ms = self.arrival.ms
        tools = body.get("tools") or body.get("functions")
        params = {name: value for name, value in body.items() if name not in ("messages", "tools")}
        return Trace(
            trace_id=self.trace_id,
            start_time=self.arrival.at,
            end_time=self.arrival.at + duration_ms / 1000,
            task=self.task,
            served_by=self.served_by,
            route=self.route,
            reason=self.reason,
            outcome=outcome,
            status_code=self.status,
            error_type=error_type or completion.error_type,
            stream=self.stream,
            provider_name=self.provider,
            request_model=body["model"],
            response_model=completion.model,
            response_id=completion.response_id,
            student_id=student.student_id if student is not None else None,
            finish_reasons=completion.finish_reasons,
            duration_ms=duration_ms,
            time_to_first_chunk_ms=self.first_chunk_ms,
            student_ms=self.student_ms,
            input_tokens=completion.tokens("prompt_tokens"),
            output_tokens=completion.tokens("completion_tokens"),
            cached_tokens=completion.tokens("prompt_tokens_details", "cached_tokens"),
            reasoning_tokens=completion.tokens("completion_tokens_details", "reasoning_tokens"),
            request_params=_json(params),
            tool_definitions=_json(tools) if tools else None,
            input_messages=_json(body["messages"]),
            output_messages=_json(completion.messages) if completion.messages else None,
            input_hash=input_hash(body["messages"]),
            fingerprint=self.fingerprint,
            confidence=self.confidence,
            content_bytes=self.request_bytes + self.answer_bytes,
            api_key_hash=self.key_hash,
            end_user=body.get("user"),
        )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
