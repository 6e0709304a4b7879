"""A chat completion in another system's log, and the trace made from it.

For imported files and for LiteLLM's callback. Pure functions. An unusable row has its reason in a
sentence of ours, never with a word of what was logged.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import isfinite
from typing import Any

from store.chat.shape import Messages, fingerprint, input_hash, system_texts, text_of
from store.errors import RedactionError
from store.ids import new_id
from store.jsontext import JsonMapping, JsonObject, to_json
from store.privacy.opted_out import without_content
from store.privacy.redaction import Redaction
from store.records import (
    Content,
    Outcome,
    Reason,
    Trace,
)
from store.settings.config import TAG

# the kept fields of a logged request: those of OpenAI's API, and no secret of the log's own
REQUEST_FIELDS = (
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "modalities",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "service_tier",
    "stop",
    "stream",
    "temperature",
    "tool_choice",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
)
NO_TIME = "its time cannot be read"
_IDS = uuid.UUID("6f3d2f0c-6a35-5d0e-9c1b-0b6f5a2f7d51")  # the namespace of these traces' ids
_TASK_PREFIX = "task:"  # of a tag that names the task among other tags
# the id of a student's answer: see proxy/surfaces/chat/write.py. It holds its trace's id, a UUIDv7
_OURS = re.compile(r"chatcmpl-[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")


class Unusable(Exception):
    """A logged row that makes no trace. The message, a fixed sentence, is safe to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedCall:
    """One chat completion as another log holds it, in the words of OpenAI's API.

    Times are seconds since the epoch; None: the log does not say; `nan` or `inf`: not a time.
    """

    request: JsonMapping  # the body: messages, model, tools…; other fields are left out
    answers: Sequence[JsonMapping]  # the choices' messages
    finish_reasons: Sequence[str] = ()
    call_id: str = ""  # the log's own id of the call
    start_time: float | None = None
    end_time: float | None = None
    first_chunk_at: float | None = None
    response_id: str | None = None
    response_model: str | None = None
    provider_name: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None  # US dollars
    api_key_hash: str | None = None
    end_user: str | None = None
    task_names: Sequence[Any] = ()  # where the log may name the task, most telling first
    tags: Sequence[Any] = field(default=())  # one of them may be the task
    fields: JsonMapping | None = None  # for --tag-from, where it is one call of several in a row
    failed: str | None = None  # the type of an error answer; None: a whole answer
    status_code: int = 200


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of log: what a file of this folder registers in cli.imports.formats."""

    name: str  # of --format
    fits: Callable[[JsonMapping], bool]  # whether a row is of this kind
    calls: Callable[[JsonMapping], Iterator[LoggedCall | Unusable]]  # the calls in a row


def first_task(names: Iterable[Any], tags: Iterable[Any] = ()) -> str | None:
    """The first of the names that is a tag, else the tag behind `task:`, else the first tag."""
    labels = [tag for tag in tags if isinstance(tag, str)]
    named = [tag.removeprefix(_TASK_PREFIX) for tag in labels if tag.startswith(_TASK_PREFIX)]
    texts = (name for name in (*names, *named, *labels) if isinstance(name, str))
    return next((name for name in texts if TAG.fullmatch(name)), None)


def make_trace(
    call: LoggedCall,
    *,
    source: str,
    task: str | None,
    model: str | None,
    at: float,
    redaction: Redaction | None = None,
    keep_content: bool = True,
) -> Trace:
    """The trace of a logged call: an answer of the teacher.

    `model`: the teacher as clients name it. `at`: the time of the call if the log has none.
    `keep_content`: False for a client that has opted out. Raises Unusable when there is no answer
    to learn, a student answered, or the content cannot be redacted.
    """
    request = {name: call.request[name] for name in REQUEST_FIELDS if _there(call.request, name)}
    messages = messages_in(call.request.get("messages"))
    answers = [plain_message(answer) for answer in call.answers]
    if not call.failed and not any(_says_something(answer) for answer in answers):
        raise Unusable("the answer is empty")
    if call.start_time is not None and not isfinite(call.start_time):
        raise Unusable(NO_TIME)
    if call.response_id is not None and _OURS.fullmatch(call.response_id):
        raise Unusable("a student of Understudy answered it, or it is in its log already")
    tools = call.request.get("tools") or None
    body = {**request, "messages": messages, "tools": tools, "model": model}
    user = call.end_user
    content: Content = "full"
    if redaction is not None:
        body, answers, user, content = _redacted(body, answers, user, redaction)
        request = {name: body[name] for name in request}
        messages, tools = body["messages"], body["tools"]
    start = at if call.start_time is None else call.start_time
    end = max(start, start if call.end_time is None else call.end_time)
    first = call.first_chunk_at
    kept_tools = tools or request.get("functions")
    try:
        trace = Trace(
            trace_id=_id(call, messages, answers, task, model) if keep_content else new_id(),
            start_time=start,
            end_time=end,
            task=task,
            served_by=None if call.failed else "teacher",
            route="teacher",
            reason=Reason.IMPORTED,
            outcome=Outcome.ERROR if call.failed else Outcome.COMPLETE,
            status_code=call.status_code,
            error_type=call.failed,
            stream=request.get("stream") is True,
            provider_name=call.provider_name,
            request_model=model,
            response_model=call.response_model,
            response_id=call.response_id,
            finish_reasons=list(call.finish_reasons),
            duration_ms=(end - start) * 1000,
            time_to_first_chunk_ms=(first - start) * 1000 if first and first >= start else None,
            input_tokens=call.input_tokens,
            output_tokens=call.output_tokens,
            cached_tokens=call.cached_tokens,
            reasoning_tokens=call.reasoning_tokens,
            cost_usd=call.cost_usd,
            request_params=_text({**request, "model": model}),
            tool_definitions=_text(kept_tools) if kept_tools else None,
            input_messages=(input_text := _text(messages)),
            output_messages=(output_text := _text(answers)) if answers else None,
            input_hash=input_hash(messages),
            fingerprint=fingerprint(body),
            content_bytes=len(input_text.encode()) + (len(output_text.encode()) if answers else 0),
            api_key_hash=call.api_key_hash,
            end_user=user,
            source=source,
            content=content,
        )
        return trace if keep_content else without_content(trace)
    except (TypeError, ValueError, RecursionError):  # nested deeper than JSON is written
        raise Unusable("it is nested too deeply, or holds what JSON cannot") from None


def _redacted(
    body: JsonObject, answers: Messages, user: str | None, redaction: Redaction
) -> tuple[JsonObject, Messages, str | None, Content]:
    """The same after redaction, and whether anything was redacted."""
    try:
        new = redaction.view({**body, "user_of_log": user}), redaction.messages(answers)
    except RedactionError:
        raise Unusable("it could not be redacted") from None
    view, new_answers = new
    changed = new_answers is not answers or any(view[name] is not body[name] for name in body)
    changed = changed or view["user_of_log"] is not user
    return view, new_answers, view["user_of_log"], "redacted" if changed else "full"


def messages_in(value: Any) -> Messages:
    """The messages of a request, plain. Raises Unusable when the value is no list of messages."""
    if not isinstance(value, list) or not value:
        raise Unusable("it has no list of chat messages")
    if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value):
        raise Unusable("not every message is an object with a role")
    return [plain_message(message) for message in value]


def plain_message(message: JsonMapping) -> JsonObject:
    """A message as a request has it.

    Logs add to it: `weight` in fine-tuning files, `id` and `content_parts` in stored completions,
    `provider_specific_fields` in LiteLLM's answers, and fields that are null.
    """
    left_out = ("weight", "content_parts", "id", "provider_specific_fields")
    plain = {
        name: value
        for name, value in message.items()
        if name not in left_out and (value is not None or name == "content")
    }
    if message.get("content_parts"):
        plain["content"] = message["content_parts"]
    return plain


def finish_reason_of(answer: JsonMapping) -> str:
    """How an answer ended, when a log keeps the message and not how it ended."""
    if answer.get("tool_calls"):
        return "tool_calls"
    return "function_call" if answer.get("function_call") else "stop"


def _id(
    call: LoggedCall, messages: Messages, answers: Messages, task: str | None, model: str | None
) -> str:
    """A UUIDv5: the same for the same call in any export.

    A hash of the log's id and the content, since some endpoints repeat ids; and of the task and the
    teacher, so that a file imported under a wrong name can be imported again.
    """
    texts = [[text_of(a.get("content")), a.get("tool_calls")] for a in answers]
    parts: list[Any] = [
        call.call_id,
        system_texts(messages),
        input_hash(messages),
        texts,
        task,
        model,
    ]
    if not call.call_id and call.start_time is not None:
        parts.append(call.start_time)
    return str(uuid.uuid5(_IDS, blake2b(to_json(parts), digest_size=32).hexdigest()))


def repeated_id(trace_id: str, times: int) -> str:
    """The id of a call that is in its log again, without an id there: an answer of its own.

    `times`: how often it came before. 0: the same id.
    """
    return str(uuid.uuid5(_IDS, f"{trace_id}:{times}")) if times else trace_id


def _says_something(answer: JsonMapping) -> bool:
    content = answer.get("content")
    return bool(
        (content.strip() if isinstance(content, str) else content)
        or answer.get("tool_calls")
        or answer.get("function_call")
        or answer.get("refusal")
    )


def _there(request: JsonMapping, name: str) -> bool:
    return request.get(name) is not None


def _text(value: Any) -> str:
    return to_json(value).decode()
