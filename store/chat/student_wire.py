"""How a student is asked and how its answer is read: one way for proxy and evaluation alike.

`mlx_lm.server` loads any path that a request names in `model`, `adapters` or `draft_model`, so a
body for it is built from an allowlist, never copied from a client's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from store.chat.formats import meets_format, meets_schema
from store.chat.normal_form import normal_text
from store.chat.shape import Messages, text_of
from store.chat.style import new_id
from store.chat.tools import (
    ToolAnswer,
    ToolCall,
    allowed,
    finish_reason,
    parameters,
    read_tool_answer,
)
from store.jsontext import JsonMapping, JsonObject, read_json
from store.records import Forms, MessageStyle, OutputKind, Reason, Signals, TermsOfService

ROLES = ("system", "user", "assistant")
LIMITS = ("max_completion_tokens", "max_tokens")
TOP_LOGPROBS = 2  # of each token: the chosen one and its rival
_MAX_TOKENS = 2**40  # twice as many fit into a JSON number, and into the database
UNFAMILIAR = "unfamiliar"  # the finish reason of a student that knows nothing like this input
MIN_LOGPROB = -700.0  # a lower one is read as this: its probability is still above 0

_NOT_AN_ANSWER = {UNFAMILIAR: Reason.STUDENT_UNFAMILIAR, "length": Reason.STUDENT_CUT_OFF}


@dataclass(frozen=True, slots=True)
class StudentAnswer:
    """A student's whole answer: as it wrote it, or as a client gets it (see `reply_of`)."""

    text: str  # empty when a client gets calls
    signals: Signals | None  # None: it does not say how likely its tokens were
    finish_reason: str
    input_tokens: int
    output_tokens: int
    calls: tuple[ToolCall, ...] = ()  # for a client, in the order in which they are to be made
    fields: tuple[str, ...] = ()  # that the teacher's messages have with nothing in them


def student_messages(messages: Messages) -> list[dict[str, str]]:
    """The messages as a student gets them, in training, evaluation and service alike.

    Text alone, and `developer` becomes `system`, as chat templates know no other name.
    """
    return [
        {
            "role": "system" if m["role"] == "developer" else m["role"],
            "content": text_of(m.get("content")),
        }
        for m in messages
    ]


def student_body(
    messages: Messages, *, max_tokens: int, params: JsonMapping | None = None
) -> bytes:
    """The request for `mlx_lm.server`: greedy, not streamed, with log-probabilities.

    Greedy, because the certificate was earned so; not streamed, because streamed chunks carry no
    log-probabilities. Of `params`, the fields of a client's request, the stops hold, and a limit
    where it is lower than `max_tokens`: an answer that runs into it goes to the teacher, which
    counts tokens in its own way.
    """
    params = params or {}
    limits = [limit for name in LIMITS if (limit := params.get(name)) is not None]
    body: JsonObject = {
        "model": "default_model",
        "messages": student_messages(messages),
        "max_tokens": max(1, min([max_tokens, *limits])),
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": TOP_LOGPROBS,
        "stream": False,
    }
    if stop := params.get("stop"):
        body["stop"] = [stop] if isinstance(stop, str) else stop
    return orjson.dumps(body)


def read_student_answer(raw: bytes) -> StudentAnswer:
    """Reads `mlx_lm.server`'s answer. Raises ValueError on anything that is not one."""
    try:
        payload = orjson.loads(raw)
        choice = payload["choices"][0]
        text = choice["message"].get("content") or ""
        if not isinstance(text, str):
            raise TypeError("a text")
        tokens = (choice.get("logprobs") or {}).get("content") or []
        usage = payload.get("usage") or {}
        return StudentAnswer(
            text=text,
            signals=_signals([t for t in tokens if t]),
            finish_reason=str(choice.get("finish_reason") or ""),
            input_tokens=_tokens(usage, "prompt_tokens"),
            output_tokens=_tokens(usage, "completion_tokens"),
        )
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a chat completion: {type(error).__name__}") from None


def _tokens(usage: JsonObject, name: str) -> int:
    """A count of tokens, 0 where it is not stated. Raises ValueError on what is no count."""
    count = int(usage.get(name) or 0)
    if not 0 <= count <= _MAX_TOKENS:
        raise ValueError("not a number of tokens")
    return count


def reply_of(
    answer: StudentAnswer, request: JsonMapping, style: MessageStyle | None = None
) -> StudentAnswer:
    """The answer as a client gets it: calls of the request's tools, or text.

    To be given an answer without a fault. `request`: a chat completion request. `style`: of the
    teacher's messages, so that the teacher takes the answer as part of a later turn.
    """
    style = style or MessageStyle()
    answer = replace(answer, fields=tuple(style.fields))
    if not request.get("tools"):
        return answer
    reply = read_tool_answer(answer.text)
    if reply is None:
        raise ValueError("not an answer to a request with tools")
    calls = tuple(
        replace(call, id=new_id(style.call_id, name=call.name, index=index))
        for index, call in enumerate(reply.calls)
    )
    return replace(
        answer, text=reply.text, calls=calls, finish_reason=finish_reason(reply, request)
    )


async def fault_of(
    answer: StudentAnswer,
    terms: TermsOfService,
    request: JsonMapping,
    *,
    confidence: float | None = None,
    placeholders: Sequence[str] = (),
) -> Reason | None:
    """Why this answer may not be served under these terms, or None when it may.

    `request`: the client's, whose response format, tools and `tool_choice` the answer has to meet.
    `confidence`: of this answer; None is below every cutoff.
    `placeholders`: of redacted text, besides those that the terms name.
    """
    if answer.finish_reason in _NOT_AN_ANSWER:
        return _NOT_AN_ANSWER[answer.finish_reason]
    forms = terms.forms
    if any(text in answer.text for text in (*placeholders, *(forms.placeholders if forms else ()))):
        return Reason.STUDENT_REDACTED
    if not await _is_well_formed(answer.text, terms.output, request, forms):
        return Reason.STUDENT_MALFORMED
    if terms.style.stateful_calls and _calls(answer, request):
        return Reason.TEACHER_STATE
    if terms.cutoff is not None and (confidence is None or confidence < terms.cutoff):
        return Reason.STUDENT_UNSURE
    return None


def _signals(tokens: Sequence[JsonMapping]) -> Signals | None:
    """The signals of an answer's tokens, each with its log-probability and the likeliest ones'."""
    if not tokens:
        return None
    pairs = [_chosen_and_rival(token) for token in tokens]
    chosen = [c for c, _ in pairs]
    rivals = math.fsum(rival for _, rival in pairs)
    return Signals(
        lowest=min(chosen),
        mean=math.fsum(chosen) / len(chosen),
        rivals=math.log(max(rivals, math.exp(MIN_LOGPROB))),
    )


def _chosen_and_rival(token: JsonMapping) -> tuple[float, float]:
    """A token's log-probability, and its rival's probability.

    A greedy student has chosen the likeliest. mlx_lm.server names the likeliest tokens in no sure
    order, and takes the first of them for the chosen one. Where no rival is named it has all that
    the chosen one leaves.
    """
    named = sorted((_logprob(t["logprob"]) for t in token.get("top_logprobs") or ()), reverse=True)
    if len(named) < TOP_LOGPROBS:
        chosen = _logprob(token["logprob"])
        return chosen, -math.expm1(chosen)
    return named[0], math.exp(named[1])


def _logprob(value: Any) -> float:
    return min(max(float(value), MIN_LOGPROB), 0.0)


async def _is_well_formed(
    text: str, output: OutputKind, request: JsonMapping, forms: Forms | None
) -> bool:
    if not request.get("tools"):
        if not text or not _has_form(text, output, forms):
            return False
        return await meets_format(text, request.get("response_format"))
    reply = read_tool_answer(text) if output == "tools" else None
    if reply is None or not _is_known_answer(reply, request, forms):
        return False
    if not reply.calls:
        return await meets_format(reply.text, request.get("response_format"))
    for call in reply.calls:
        if not await meets_schema(call.arguments, parameters(call.name, request)):
            return False
    return True


def _calls(answer: StudentAnswer, request: JsonMapping) -> bool:
    reply = read_tool_answer(answer.text) if request.get("tools") else None
    return reply is not None and bool(reply.calls)


def _is_known_answer(reply: ToolAnswer, request: JsonMapping, forms: Forms | None) -> bool:
    known = forms is None or not forms.calls or set(reply.names).issubset(forms.calls)
    return known and allowed(reply, request)


def _has_form(text: str, output: OutputKind, forms: Forms | None) -> bool:
    if output == "json":
        try:
            value = read_json(text)
        except ValueError:
            return False
        if isinstance(value, dict):
            return forms is None or not forms.keys or sorted(value) in forms.keys
        return isinstance(value, list) and (forms is None or forms.lists)
    if output == "label" and forms is not None and forms.labels:
        return normal_text(text) in forms.labels
    return True
