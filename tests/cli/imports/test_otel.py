"""OpenTelemetry's spans, records and events of model calls, in their several conventions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.imports.logged import LoggedCall, Unusable, make_trace
from cli.imports.otel import otlp
from cli.imports.values import at_path
from store.records import Trace
from tests.helpers import log_samples as logs

NEW = {"gen_ai.input.messages": logs.GENAI_INPUT, "gen_ai.output.messages": logs.GENAI_OUTPUT}
EVENTS = [
    ("gen_ai.system.message", {"content": logs.SYSTEM}),
    ("gen_ai.user.message", {"content": logs.ASKED}),
    ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": {"content": logs.ANSWER}}),
]
OPENLLMETRY = {
    f"gen_ai.prompt.{n}.{name}": value
    for n, message in enumerate(logs.MESSAGES)
    for name, value in message.items()
} | {
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": logs.ANSWER,
    "gen_ai.completion.0.finish_reason": "stop",
}
BATCHES = {
    "JSON in attributes": logs.genai_batch(),
    "structured attributes": logs.otlp(logs.span({**logs.GENAI, **NEW})),
    "system instructions": logs.otlp(
        logs.span(
            {
                **logs.GENAI,
                "gen_ai.system_instructions": json.dumps(logs.GENAI_INPUT[0]["parts"]),
                "gen_ai.input.messages": json.dumps(logs.GENAI_INPUT[1:]),
                "gen_ai.output.messages": json.dumps(logs.GENAI_OUTPUT),
            }
        )
    ),
    "event with the details": logs.otlp(
        logs.span(logs.GENAI, [("gen_ai.client.inference.operation.details", NEW)])
    ),
    "events": logs.otlp(logs.span(logs.GENAI, EVENTS)),
    "events in JSON": logs.otlp(
        logs.span(
            logs.GENAI,
            [(name, {"gen_ai.event.content": json.dumps(body)}) for name, body in EVENTS],
        )
    ),
    "prompt and completion events": logs.otlp(
        logs.span(
            logs.GENAI,
            [
                ("gen_ai.content.prompt", {"gen_ai.prompt": json.dumps(logs.MESSAGES)}),
                (
                    "gen_ai.content.completion",
                    {"gen_ai.completion": json.dumps([{"content": logs.ANSWER}])},
                ),
            ],
        )
    ),
    "OpenLLMetry": logs.otlp(logs.span({**logs.GENAI, **OPENLLMETRY})),
}


def trace(batch: dict[str, Any]) -> Trace:
    [call] = otlp(batch)
    assert isinstance(call, LoggedCall), call
    return make_trace(call, source="import:x", task="triage", model="gpt-4.1", at=5.0)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_every_convention_gives_the_same_call(batch: dict[str, Any]) -> None:
    made = trace(batch)
    assert json.loads(made.input_messages) == logs.MESSAGES
    assert json.loads(made.output_messages or "") == [{"role": "assistant", "content": logs.ANSWER}]
    assert made.finish_reasons == ["stop"]
    assert (made.start_time, made.end_time) == (1748852130.25, 1748852131.75)
    assert (made.input_tokens, made.output_tokens, made.provider_name) == (31, 2, "openai")
    assert made.response_model == "gpt-4.1-2025-04-14"
    assert json.loads(made.request_params)["temperature"] == 0.2
    assert made.trace_id == trace(logs.genai_batch()).trace_id


def test_log_records_of_one_span_are_one_call() -> None:
    records = [
        {
            "timeUnixNano": "1748852130250000000",
            "eventName": name,
            "traceId": "t",
            "spanId": "s",
            "attributes": logs.otlp_attributes({"gen_ai.system": "openai"}),
            "body": logs.otlp_value(body),
        }
        for name, body in EVENTS
    ]
    made = trace({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]})
    assert json.loads(made.input_messages) == logs.MESSAGES
    assert json.loads(made.output_messages or "")[0]["content"] == logs.ANSWER


def test_tool_calls_and_their_results_are_openais() -> None:
    call = {"type": "tool_call", "id": "call_1", "name": "track", "arguments": {}}
    result = {"type": "tool_call_response", "id": "call_1", "response": "late"}
    asked = [
        *logs.GENAI_INPUT,
        {"role": "assistant", "parts": [call]},
        {"role": "tool", "parts": [result]},
    ]
    answered = [{"role": "assistant", "parts": [call], "finish_reason": "tool_call"}]
    new = {"gen_ai.input.messages": asked, "gen_ai.output.messages": answered}
    made = trace(logs.otlp(logs.span({**logs.GENAI, **new})))
    message = {"role": "assistant", "content": None, "tool_calls": [logs.CALL]}
    assert json.loads(made.input_messages)[2:] == [
        message,
        {"role": "tool", "tool_call_id": "call_1", "content": "late"},
    ]
    assert json.loads(made.output_messages or "") == [message]
    assert made.finish_reasons == ["tool_calls"]


def test_openllmetrys_tool_calls_are_openais() -> None:
    names = {"id": "call_1", "name": "track", "arguments": "{}"}
    values = {
        **{k: v for k, v in OPENLLMETRY.items() if "completion.0.content" not in k},
        **{f"gen_ai.completion.0.tool_calls.0.{name}": value for name, value in names.items()},
        "gen_ai.completion.0.finish_reason": "tool_calls",
    }
    made = trace(logs.otlp(logs.span({**logs.GENAI, **values})))
    assert json.loads(made.output_messages or "")[0]["tool_calls"] == [logs.CALL]


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (logs.span({"http.route": "/"}), "no model call"),
        (logs.span(logs.GENAI), "does not capture content"),
        (logs.span({**logs.GENAI, **NEW}, status={"code": 2}), "the call failed"),
        (logs.span({**logs.GENAI, **NEW, "gen_ai.operation.name": "embeddings"}), "not a chat"),
        (logs.span({**logs.GENAI, **NEW, "gen_ai.output.messages": [1]}), "no message of the"),
    ],
)
def test_a_span_that_makes_no_trace_has_its_reason(one: dict[str, Any], why: str) -> None:
    [found] = otlp(logs.otlp(one))
    assert isinstance(found, Unusable)
    assert why in str(found)


def test_the_task_may_be_in_an_attribute_of_the_span_or_of_its_resource() -> None:
    [call] = otlp(logs.otlp(logs.span({**logs.GENAI, **NEW, "gen_ai.agent.name": "refunds"})))
    assert isinstance(call, LoggedCall)
    assert call.task_names == ["triage"]
    assert at_path(call.fields or {}, "gen_ai.agent.name") == "refunds"
    assert at_path(call.fields or {}, "service.name") == "inbox"
