"""The nouns: one frozen record for each word of the design, each field with its unit.

Times are seconds since the epoch, UTC. Ids are UUIDv7 strings (sortable by time). Text that came
from a client or a model is kept as the OpenAI wire JSON it arrived in.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self, TypeVar, dataclass_transform

SCHEMA_VERSION = 1

Split = Literal["train", "calibration", "heldout"]
Origin = Literal["trace", "synthetic", "seed", "correction"]
OutputKind = Literal["json", "label", "text", "tools"]
ScorerName = Literal["exact", "json", "text", "judge"]
Purpose = Literal["policy", "inputs", "answers", "noise", "judge", "audits"]
RouteName = Literal["teacher", "student", "fallback"]
Api = Literal["chat_completions", "responses", "messages", "completions", "embeddings"]
Content = Literal["full", "redacted", "none"]

_Record = TypeVar("_Record")
_VARIANT = "89ab"
_tails: list[str] = []  # ends of ids, none given out yet
os.register_at_fork(after_in_child=_tails.clear)  # else both processes would give out the same


def new_id() -> str:
    """A UUIDv7 (RFC 9562): 48 bits of milliseconds, then 74 random bits."""
    # written out, since uuid.UUID takes several times as long and every request needs one
    try:
        tail = _tails.pop()
    except IndexError:
        tail = _random_tail()
    now = f"{time.time_ns() // 1_000_000:012x}"
    return f"{now[:8]}-{now[8:]}{tail}"


def _random_tail() -> str:
    """What follows the time. The system is asked for many at once: a system call less a request."""
    digits = os.urandom(10 * 200).hex()
    found = [
        f"-7{one[1:4]}-{_VARIANT[int(one[4], 16) & 3]}{one[5:8]}-{one[8:]}"
        for one in (digits[at : at + 20] for at in range(0, len(digits), 20))
    ]
    _tails.extend(found[1:])
    return found[0]


class Reason(StrEnum):
    """Why a request took the way it took: the value of `x-understudy-reason`."""

    # decided before anything is sent
    UNTAGGED = "untagged"  # no task tag: always the teacher
    NO_STUDENT = "no_student"  # nothing is promoted for this task (yet)
    CERTIFIED = "certified"  # the student was certified for requests of this shape
    STUDENT_STARTING = "student_starting"  # promoted, its server is not up yet
    SHADOW = "shadow"  # the student is only compared, in the background
    NOT_IN_SHARE = "not_in_share"  # a canary: this conversation is not in the student's share yet
    DEMOTED = "demoted"  # the student was found out, or demoted by hand
    PAUSED = "paused"  # the task is paused: no runs, and the teacher answers
    OTHER_FINGERPRINT = "other_fingerprint"  # another prompt, schema or teacher than certified
    TOOLS = "tools"  # the request brings tools, or what a student cannot do with them
    NOT_TEXT = "not_text"  # images, audio, files
    SEVERAL_CHOICES = "several_choices"  # n > 1
    LOGPROBS = "logprobs"  # the client wants token probabilities
    INPUT_TOO_LONG = "input_too_long"  # longer than what was certified
    UNKNOWN_FIELD = "unknown_field"  # a request field that the student was not certified for
    OTHER_API = "other_api"  # embeddings, legacy completions: no student answers there
    NOT_REDACTED = "not_redacted"  # the redaction failed, and students know redacted requests alone
    # also after it was asked, as `fallback`
    NOT_KEPT = "not_kept"  # a student's answer cannot be kept for a client that may come back to it
    # decided after the student was asked: the route is then `fallback`
    STUDENT_DOWN = "student_down"  # no connection, or it broke
    STUDENT_ERROR = "student_error"  # an error status, or an answer that cannot be read
    STUDENT_SLOW = "student_slow"  # no answer within the time limit
    STUDENT_UNSURE = "student_unsure"  # confidence below the certified cutoff
    STUDENT_CUT_OFF = "student_cut_off"  # ran into a length limit before its answer ended
    STUDENT_MALFORMED = "student_malformed"  # broke the requested or the certified output format
    STUDENT_REDACTED = "student_redacted"  # says a placeholder where the client wants the text
    # never a header's value: of traces that did not come through the proxy
    IMPORTED = "imported"  # somebody else's log says that the teacher answered this


class Outcome(StrEnum):
    """How an exchange ended, seen from the client."""

    COMPLETE = "complete"  # the client got the whole answer
    CLIENT_GONE = "client_gone"  # the client hung up before the end
    TEACHER_BROKE = "teacher_broke"  # the teacher's answer ended before its end
    ERROR = "error"  # an error status, the teacher's or ours


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def _quickly_made(record: type[_Record]) -> type[_Record]:
    """Frozen for whoever checks types; at run time neither frozen nor with slots.

    The proxy makes and writes one for each request: 2 µs so, 16 µs as other records are.
    """
    return dataclass(kw_only=True, unsafe_hash=True)(record)


@_quickly_made
class Trace:
    """One logged request with its answer."""

    trace_id: str
    start_time: float
    end_time: float
    task: str | None  # None: untagged
    operation_name: str = "chat"  # OpenTelemetry's name: chat, text_completion, embeddings
    served_by: Literal["teacher", "student"] | None  # None: nobody answered
    route: RouteName
    reason: str  # a Reason
    outcome: str  # an Outcome
    status_code: int  # what the client got; 499 when it hung up before any status
    error_type: str | None = None  # `error.type` or `error.code` of an error answer
    stream: bool = False
    provider_name: str | None = None  # provider of the LiteLLM model string, e.g. `openai`
    request_model: str | None = None  # as the client named it
    response_model: str | None = None
    response_id: str | None = None
    student_id: str | None = None  # set when a student was asked, also on fallback
    finish_reasons: list[str] = field(default_factory=list)
    duration_ms: float = 0.0
    time_to_first_chunk_ms: float | None = None
    student_ms: float | None = None  # the student's own time, also when it fell back
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    request_params: str = "{}"  # JSON object: the body without messages and tools
    tool_definitions: str | None = None  # JSON array
    input_messages: str = "[]"  # JSON array, OpenAI wire format
    output_messages: str | None = None  # JSON array of the choices' messages
    input_hash: str = ""  # see store.chat.shape.input_hash
    fingerprint: str = ""  # see store.chat.shape.fingerprint
    confidence: float | None = None  # of the student's answer, by its route's model
    content_bytes: int = 0  # request body + answer
    api_key_hash: str | None = None
    end_user: str | None = None  # the request's `user`
    source: str = "proxy"  # or `import:<format>`, or `litellm`: whose log it comes from
    cost_usd: float | None = None  # as that log states it; None: tokens times the price table
    api: Api = "chat_completions"  # which one the client called
    content: Content = "full"  # how much of the texts is kept; none: the client opted out
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """The trace with these fields, all there are: in a third of the time of naming them one by
        one, since the proxy makes one for each request. `fields` belongs to the trace from now on.
        """
        trace = cls.__new__(cls)
        object.__setattr__(trace, "__dict__", fields)
        return trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One training item: a request's messages and the answer to learn."""

    example_id: str
    task: str
    run_id: str
    origin: Origin
    split: Split
    status: Literal["kept", "rejected"]
    reason: str  # why it was kept or rejected, in one word or a short sentence
    input_messages: str  # JSON array, OpenAI wire format, without the answer
    target: str  # the teacher's answer
    input_hash: str
    source_trace_id: str | None = None  # for origin `trace`
    # what stood in the prompt that it was written under: ids of traces and of other examples, and
    # that of its run for the run's policy
    parent_ids: list[str] = field(default_factory=list)
    generator_model: str | None = None
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherCall:
    """One paid call to the teacher that served distilling, not a client."""

    call_id: str
    run_id: str
    task: str
    purpose: Purpose
    model: str
    input_tokens: int
    output_tokens: int
    at: float
    duration_ms: float


class RunState(StrEnum):
    """collected → amplified → trained → evaluated → promoted | rejected | failed."""

    COLLECTED = "collected"
    AMPLIFIED = "amplified"
    TRAINED = "trained"
    EVALUATED = "evaluated"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in (RunState.PROMOTED, RunState.REJECTED, RunState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """One line in the append-only history of a run."""

    run_id: str
    seq: int  # 0, 1, 2… within the run
    task: str
    state: RunState
    at: float
    seconds: float = 0.0  # what the stage that ended here took
    reason: str = ""  # why promoted, rejected or failed
    detail: dict[str, Any] = field(default_factory=dict)  # the stage's numbers
