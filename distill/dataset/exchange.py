"""From a logged exchange to a lesson: what it teaches a student, or why it teaches nothing.

The text to learn is the answer's words or, where the request had tools, the JSON of
store.chat.tools.
"""

from __future__ import annotations

from dataclasses import dataclass

from store.chat.shape import Messages, fingerprint, text_of
from store.chat.student_wire import ROLES
from store.chat.tools import FIELDS as TOOL_FIELDS
from store.chat.tools import beyond_students, read_tool_answer, rules, target_of
from store.jsontext import JsonMapping, JsonObject, read_json
from store.records import LoggedExchange, LoggedRequest, Outcome

# The fields that are sent again when the teacher is asked for a synthetic input. All others are the
# client's own business (`metadata`, `user`, `stream`…) or cannot be learnt from (`n`, `logprobs`).
REASKED_PARAMS = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "reasoning_effort",
    "verbosity",
    *TOOL_FIELDS,
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a student can learn from a logged exchange."""

    params: JsonObject  # of the request: REASKED_PARAMS that it had, with its tools
    target: str  # what the student should have answered; empty when there is nothing to learn
    reason: str  # why it teaches nothing, in one word; empty when it does


def lesson_of(exchange: LoggedExchange) -> Lesson:
    """The lesson of an exchange.

    Of a logged answer, only a whole one of the teacher teaches something. Of an audit it is the
    teacher's later answer, of a correction the client's words, whoever answered before.
    """
    params = reasked_params(exchange.request)
    match exchange.kind:
        case "answer":
            choice = exchange.choices[0] if exchange.choices else {}
            target = target_in_message(choice, params)
            return Lesson(params, target, _why_not_answer(exchange, choice, target))
        case "audit":
            target = exchange.replacement
        case "correction":
            target = target_in_correction(exchange.replacement, params)
    reason = _why_not_request(exchange) or ("" if target.strip() else "no_answer")
    return Lesson(params, target, reason)


def reasked_params(request: LoggedRequest) -> JsonObject:
    """The parameters that a request is asked with again, with its tools."""
    fields = {**request.params, "tools": request.tools}
    return {name: fields[name] for name in REASKED_PARAMS if fields.get(name) is not None}


def shape_body(request: LoggedRequest) -> JsonObject:
    """The fields of a request that fix its shape: what store.chat.shape.fingerprint reads."""
    params = request.params
    return {
        "messages": request.messages,
        "tools": None if params.get("functions") else request.tools,
        "tool_choice": params.get("tool_choice"),
        "parallel_tool_calls": params.get("parallel_tool_calls"),
        "functions": params.get("functions"),
        "response_format": params.get("response_format"),
        "model": params.get("model"),
    }


def target_in_message(message: JsonMapping, params: JsonMapping) -> str:
    """What a student should have answered, by the teacher's message or another model's.

    `params`: the request's. Empty when it could not have answered so.
    """
    if params.get("tools"):
        return target_of(message) or ""
    return "" if _calls_something(message) else text_of(message.get("content"))


def target_in_correction(correction: str, params: JsonMapping) -> str:
    """What a student should have answered, by a client's correction.

    With tools it may be a student's JSON object, or OpenAI's message or list of its tool calls;
    anything else is words.
    """
    if not params.get("tools") or read_tool_answer(correction) is not None:
        return correction
    try:
        value = read_json(correction)
    except ValueError:
        value = None
    message = {"tool_calls": value} if isinstance(value, list) else value
    calls = None
    if isinstance(message, dict) and message.get("tool_calls"):
        calls = target_of(message)
    return calls or target_of({"content": correction}) or ""


def _why_not_answer(exchange: LoggedExchange, choice: JsonMapping, target: str) -> str:
    """Why an answer teaches nothing, in one word; empty when it does."""
    calls, answered = _calls_something(choice), bool(target.strip())
    ended = (["stop"], ["tool_calls"]) if calls else (["stop"],)
    whole = exchange.status_code == 200 and exchange.outcome == Outcome.COMPLETE
    reasons = (
        ("not_from_teacher", exchange.served_by != "teacher"),
        ("incomplete", not whole),
        ("tools", calls and not answered),
        (_why_not_request(exchange), True),
        ("several_choices", len(exchange.choices) > 1),
        ("not_finished", exchange.finish_reasons not in ended),
        ("no_answer", not answered),
    )
    return next((reason for reason, applies in reasons if reason and applies), "")


def _why_not_request(exchange: LoggedExchange) -> str:
    """Why a request cannot be learnt, whoever answered it; empty when it can."""
    request = exchange.request
    if request.tools is not None:
        fields = {**request.params, "tools": request.tools}
        if beyond_students(fields):
            return "tools"
        # before `tool_choice` was part of the fingerprint it was logged under another request's
        if rules(fields) and fingerprint(shape_body(request)) != exchange.fingerprint:
            return "old_fingerprint"
    return "" if _is_text_conversation(request.messages) else "not_text"


def _is_text_conversation(messages: Messages) -> bool:
    """Whether a student's chat template can render it, and the user speaks last."""
    return (
        bool(messages)
        and messages[-1].get("role") == "user"
        and all(
            m.get("role") in (*ROLES, "developer") and not _calls_something(m) and _is_text(m)
            for m in messages
        )
    )


def _is_text(message: JsonMapping) -> bool:
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(p, dict) and p.get("type") == "text" for p in content)
    return isinstance(content, str)


def _calls_something(message: JsonMapping) -> bool:
    return bool(message.get("tool_calls") or message.get("function_call"))
