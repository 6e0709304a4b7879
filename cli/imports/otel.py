"""OpenTelemetry's spans and log records of model calls, as OTLP writes them in JSON.

The calls' texts are in the attributes `gen_ai.input.messages` and `gen_ai.output.messages`, in the
older events `gen_ai.user.message` … `gen_ai.choice`, or in OpenLLMetry's `gen_ai.prompt.0.content`.
https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cli.imports.answers import FAILED, LoggedAnswer
from cli.imports.logged import Format, LoggedCall, Unusable, finish_reason_of
from cli.imports.messages import chat_messages, finish_reason, openai_tools, read_message
from cli.imports.values import (
    as_count,
    as_list,
    as_object,
    as_text,
    as_time,
    first_of,
    logged_time,
    parsed,
)
from store.chat.shape import Messages, text_of
from store.jsontext import JsonMapping, JsonObject

NO_CALL = "a span or a record that is no model call"
NO_TEXTS = "its messages are not in the log: the instrumentation does not capture content"
_CHAT = ("", "chat", "generate_content", "stream")
_PARAMS = {
    "choice.count": "n",
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "max_tokens",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "stop_sequences": "stop",
    "temperature": "temperature",
    "top_p": "top_p",
}
_ROLES = ("system", "user", "assistant", "tool")
_DETAILS = "gen_ai.client.inference.operation.details"
_MAX_ITEMS = 100_000  # the highest number of a message in the name of an attribute


def is_otlp(row: JsonMapping) -> bool:
    """Whether a row is a batch of spans or of log records."""
    return bool(as_list(row.get("resourceSpans")) or as_list(row.get("resourceLogs")))


def otlp(row: JsonMapping) -> Iterator[LoggedCall | Unusable]:
    """The model calls in a batch."""
    for resource, span in _spans(row):
        try:
            yield _call(span, resource)
        except Unusable as why:
            yield why
    for resource, record in _records(row):
        try:
            yield _call(record, resource)
        except Unusable as why:
            yield why


def _spans(row: JsonMapping) -> Iterator[tuple[JsonObject, JsonObject]]:
    for batch in _objects(row.get("resourceSpans")):
        resource = attributes(as_object(batch.get("resource")).get("attributes"))
        scopes = batch.get("scopeSpans") or batch.get("instrumentationLibrarySpans")
        for scope in _objects(scopes):
            for span in _objects(scope.get("spans")):
                yield resource, span


def _records(row: JsonMapping) -> Iterator[tuple[JsonObject, JsonObject]]:
    """The log records as spans: those of one span together, as its events."""
    for batch in _objects(row.get("resourceLogs")):
        resource = attributes(as_object(batch.get("resource")).get("attributes"))
        spans: dict[tuple[str, str], JsonObject] = {}
        for scope in _objects(batch.get("scopeLogs")):
            for number, record in enumerate(_objects(scope.get("logRecords"))):
                trace, span = str(record.get("traceId") or ""), str(record.get("spanId") or "")
                key = (trace, span or f"#{number}")
                held = spans.setdefault(
                    key,
                    {
                        "traceId": trace,
                        "spanId": span,
                        "startTimeUnixNano": first_of(
                            record, "timeUnixNano", "observedTimeUnixNano"
                        ),
                        "events": [],
                    },
                )
                held["events"].append(
                    {"name": record.get("eventName"), **record, "body": _value(record.get("body"))}
                )
        yield from ((resource, span) for span in spans.values())


def _call(span: JsonMapping, resource: JsonObject) -> LoggedCall:
    own = attributes(span.get("attributes"))
    events = [
        (_event_name(event), attributes(event.get("attributes")), event.get("body"))
        for event in _objects(span.get("events"))
    ]
    known: JsonObject = {}
    for name, event, _ in events:
        if name == _DETAILS:
            known |= event
    known |= own
    if not any(name.startswith("gen_ai.") for name in [*known, *(name for name, *_ in events)]):
        raise Unusable(NO_CALL)
    if str(known.get("gen_ai.operation.name") or "").lower() not in _CHAT:
        raise Unusable("not a chat completion")
    status = as_object(span.get("status")).get("code")
    if status in (2, "2", "STATUS_CODE_ERROR") or known.get("error.type"):
        raise Unusable(FAILED)
    messages, answer = _texts(known, events)
    params = {
        ours: known[f"gen_ai.request.{theirs}"]
        for theirs, ours in _PARAMS.items()
        if f"gen_ai.request.{theirs}" in known
    }
    model = first_of(known, "gen_ai.request.model", "gen_ai.response.model")
    tools = known.get("gen_ai.tool.definitions") or _unflattened(known, "llm.request.functions")
    span_id = as_text(span.get("spanId"))
    call_id = f"{span.get('traceId')}:{span_id}" if span_id else ""
    first, last = span.get("startTimeUnixNano"), span.get("endTimeUnixNano")
    fields = answer.fields()
    return LoggedCall(
        request={**params, "messages": messages, "model": model, "tools": openai_tools(tools)},
        **{
            **fields,
            "response_id": as_text(known.get("gen_ai.response.id")),
            "response_model": as_text(known.get("gen_ai.response.model")),
            "input_tokens": _count(known, "input_tokens", "prompt_tokens"),
            "output_tokens": _count(known, "output_tokens", "completion_tokens"),
            "cached_tokens": _count(known, "cache_read.input_tokens", "cache_read_input_tokens"),
        },
        call_id=as_text(known.get("gen_ai.response.id")) or call_id,
        start_time=logged_time(first),
        end_time=as_time(last),
        provider_name=as_text(first_of(known, "gen_ai.provider.name", "gen_ai.system")),
        end_user=as_text(first_of(known, "enduser.id", "user.id")),
        task_names=[
            first_of({**resource, **known}, "understudy.task", "task", "metadata.task"),
        ],
        fields={**resource, **known, "resource": resource, "name": span.get("name")},
    )


_Event = tuple[str, JsonObject, Any]  # its name, its attributes, its body


def _texts(known: JsonObject, events: list[_Event]) -> tuple[Messages, LoggedAnswer]:
    """The messages of a call and its answer. Raises Unusable when the log does not hold them."""
    system = parsed(known.get("gen_ai.system_instructions"))
    asked = parsed(known.get("gen_ai.input.messages"))
    answered = parsed(known.get("gen_ai.output.messages"))
    if not asked:
        asked = _unflattened(known, "gen_ai.prompt") or parsed(known.get("ai.prompt.messages"))
    if not answered:
        answered = _unflattened(known, "gen_ai.completion")
    from_events = _of_events(events)
    asked, answered = asked or from_events[0], answered or from_events[1]
    if not asked or not answered:
        raise Unusable(NO_TEXTS)
    messages = chat_messages(asked)
    if system:
        parts = system if isinstance(system, list) else [{"type": "text", "content": str(system)}]
        read = read_message({"role": "system", "parts": parts}) or []
        messages = [*read, *messages]
    choices, reasons = [], []
    logged = as_list(known.get("gen_ai.response.finish_reasons"))
    for number, choice in enumerate(as_list(answered)):
        read = read_message(choice, role="assistant") or []
        if not read or read[-1]["role"] != "assistant":
            raise Unusable("its output is no message of the assistant")
        message = read[-1]
        if isinstance(message.get("content"), list):
            message["content"] = text_of(message["content"])
        said = as_object(choice).get("finish_reason") or next(iter(logged[number:]), None)
        choices.append(message)
        reasons.append(finish_reason(said) or finish_reason_of(message))
    return messages, LoggedAnswer(choices, reasons)


def _of_events(events: list[_Event]) -> tuple[list[Any], list[Any]]:
    """The messages and the choices in events, in their order."""
    asked: list[Any] = []
    answered: list[Any] = []
    for name, held, body in events:
        message = _event_message(held, body)
        if name == "gen_ai.content.prompt":
            asked += as_list(held.get("gen_ai.prompt"))
        elif name == "gen_ai.content.completion":
            answered += as_list(held.get("gen_ai.completion"))
        elif name == "gen_ai.choice":
            inner = as_object(message.get("message"))
            answered.append({"role": "assistant", "content": None, **message, **inner})
        elif name.removeprefix("gen_ai.").removesuffix(".message") in _ROLES:
            role = name.split(".")[1]
            named = {"tool_call_id": message["id"]} if role == "tool" and "id" in message else {}
            asked.append({"role": role, "content": None, **message, **named})
    return asked, answered


def _event_message(held: JsonObject, body: Any) -> JsonObject:
    """The message of an event: in its body, in one attribute as JSON, or in its attributes."""
    inner = as_object(body) or as_object(held.get("gen_ai.event.content"))
    message = {**held, **inner}
    if "tool_calls" in message:
        message["tool_calls"] = as_list(message["tool_calls"])
    return message


def _event_name(event: JsonMapping) -> str:
    named = event.get("name") or attributes(event.get("attributes")).get("event.name")
    return named if isinstance(named, str) else ""


def attributes(value: Any) -> JsonObject:
    """Attributes as OTLP writes them, a list of keys and typed values, as an object."""
    if isinstance(value, dict):
        return value
    return {
        one["key"]: _value(one.get("value"))
        for one in _objects(value)
        if isinstance(one.get("key"), str)
    }


def _value(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kind, held = next(iter(value.items()), ("", None))
    if kind == "arrayValue":
        return [_value(one) for one in as_list(as_object(held).get("values"))]
    if kind == "kvlistValue":
        return attributes(as_object(held).get("values"))
    if kind == "intValue":
        return as_count(held) if not isinstance(held, int) else held
    return held if len(value) == 1 and kind.endswith("Value") else value


def _unflattened(known: JsonMapping, prefix: str) -> list[Any]:
    """The list in attributes such as `gen_ai.prompt.0.content`; empty without any."""
    start = f"{prefix}."
    tree: JsonObject = {}
    for name, value in known.items():
        if name.startswith(start):
            place = tree
            *path, last = name[len(start) :].split(".")
            for key in path:
                inner = place.setdefault(key, {})
                if not isinstance(inner, dict):
                    break
                place = inner
            else:
                place[last] = value
    held = _lists(tree)
    return held if isinstance(held, list) else []


def _lists(value: Any) -> Any:
    """Objects whose keys are numbers as lists."""
    if not isinstance(value, dict) or not value:
        return value
    if all(key.isdecimal() and len(key) <= len(str(_MAX_ITEMS)) for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(inner) for key, inner in value.items()}


def _count(known: JsonMapping, *names: str) -> int | None:
    return as_count(first_of(known, *(f"gen_ai.usage.{name}" for name in names)))


def _objects(value: Any) -> list[JsonObject]:
    return [one for one in as_list(value) if isinstance(one, dict)]


FORMAT = Format("opentelemetry", is_otlp, otlp)
