"""Decides whether a request goes to its task's student.

A pure function of the request and the published routes, with the reason in its result. In doubt the
teacher answers: no certificate covers a field that is not listed here. Shadow and canary are
checked last, so that the student can be compared on each request that the teacher gets for these
reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from proxy.routing.bucket import rollout_bucket
from store.chat.prompt_templates import hash_of_input, template_of
from store.chat.shape import input_chars
from store.chat.tools import FIELDS as TOOL_FIELDS
from store.chat.tools import beyond_students as beyond_with_tools
from store.jsontext import JsonObject
from store.records import Reason, Route

# Fields that a student honours, or that do not change an answer. `model` and `response_format` are
# part of the fingerprint, as are all fields about tools (store.chat.tools); `temperature`, `top_p`
# and `seed` say how to sample, which the certificate has covered already; a student gets the
# client's limits and stops.
HONOURED = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "response_format",
        "temperature",
        "top_p",
        "seed",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "metadata",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "service_tier",
    }
)
# Field → its values that ask for nothing. null always asks for nothing.
IDLE: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "store": (False,),  # true: the teacher's platform keeps it for later look-up
    "logprobs": (False,),
    "functions": ([],),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
}
_REASONS = {
    "n": Reason.SEVERAL_CHOICES,
    "logprobs": Reason.LOGPROBS,
    "top_logprobs": Reason.LOGPROBS,
    "functions": Reason.TOOLS,
    "function_call": Reason.TOOLS,
    "modalities": Reason.NOT_TEXT,
    "audio": Reason.NOT_TEXT,
}
_ROLES = frozenset({"system", "developer", "user", "assistant"})
_STREAM_OPTIONS = frozenset({"include_usage", "include_obfuscation"})


class Decision(msgspec.Struct, frozen=True):
    """Who answers, and why."""

    reason: Reason
    student: Route | None = None  # None: the teacher


def decide(
    task: str | None, fingerprint: str, body: JsonObject, routes: Mapping[str, Route]
) -> Decision:
    """Where a chat completion goes. `body` has been checked."""
    if task is None:
        return Decision(Reason.UNTAGGED)
    route = routes.get(task)
    if route is None or route.target != "student":
        return Decision(_teacher_reason(route))
    against = _beyond_certificate(route, fingerprint, body) or _beyond_share(route, body)
    return Decision(Reason.CERTIFIED, route) if against is None else Decision(against)


def _beyond_certificate(route: Route, fingerprint: str, body: JsonObject) -> Reason | None:
    template = None  # they are tried only for unknown fingerprints
    if fingerprint not in route.fingerprints:
        template = template_of(route.templates, body)
        if template is None:
            return Reason.OTHER_FINGERPRINT
    if body.get("tools") and route.terms.output != "tools":
        return Reason.TOOLS
    beyond = beyond_students(body)
    if beyond is None and input_chars(body["messages"]) > route.max_input_chars:
        return Reason.INPUT_TOO_LONG
    if (
        beyond is None
        and route.teacher_inputs
        and hash_of_input(template, body["messages"]) in route.teacher_inputs
    ):
        return Reason.TEACHER_INPUT
    return beyond


def _beyond_share(route: Route, body: JsonObject) -> Reason | None:
    if route.share >= 1:
        return None
    if route.share <= 0:
        return Reason.SHADOW
    within = rollout_bucket(route.student_id or route.task, body) < route.share
    return None if within else Reason.NOT_IN_SHARE


def beyond_students(body: JsonObject) -> Reason | None:
    """What no student can do of this request; None if a student may be asked."""
    if beyond_with_tools(body):
        return Reason.TOOLS
    for name, value in body.items():
        if (
            name in HONOURED
            or name in TOOL_FIELDS
            or value is None
            or asks_nothing(value, IDLE.get(name, ()))
        ):
            continue
        return _REASONS.get(name, Reason.UNKNOWN_FIELD)
    if not _STREAM_OPTIONS.issuperset(body.get("stream_options") or ()):
        return Reason.UNKNOWN_FIELD
    stop = body.get("stop")
    if isinstance(stop, list) and not all(isinstance(one, str) for one in stop):
        return Reason.UNKNOWN_FIELD
    for message in body["messages"]:
        beyond = _beyond_message(message)
        if beyond is not None:
            return beyond
    return None


def _beyond_message(message: JsonObject) -> Reason | None:
    if message["role"] not in _ROLES:
        return Reason.TOOLS if message["role"] in ("tool", "function") else Reason.UNKNOWN_FIELD
    for name, value in message.items():
        if name in ("role", "content") or value is None or value == []:
            continue
        return Reason.TOOLS if name in ("tool_calls", "function_call") else Reason.UNKNOWN_FIELD
    return _beyond_content(message.get("content"))


def _beyond_content(content: str | list[Any] | None) -> Reason | None:
    if isinstance(content, str):
        return None
    if not content:
        return Reason.NOT_TEXT
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            return Reason.NOT_TEXT
        if not isinstance(part.get("text"), str) or len(part) > 2:
            return Reason.UNKNOWN_FIELD
    return None


def asks_nothing(value: Any, idle: Sequence[Any]) -> bool:
    """Whether a field's value is one of these, which ask for nothing; false and 0 differ."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in idle)


def _teacher_reason(route: Route | None) -> Reason:
    """The reason of a teacher's route; one that is not in Reason means that there is no student."""
    try:
        return Reason(route.reason) if route is not None else Reason.NO_STUDENT
    except ValueError:
        return Reason.NO_STUDENT
