"""LangSmith's runs, Bedrock's invocation logs and Helicone's requests, in their several shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.imports.formats import FORMATS
from cli.imports.logged import LoggedCall, Unusable, first_task, make_trace
from store.records import Trace
from tests.helpers import log_samples as logs

PLAIN = [{"role": "assistant", "content": logs.ANSWER}]
OPENAI_INPUTS = {"model": "gpt-4.1", "messages": logs.MESSAGES, "temperature": 0.2}
CONVERSE_EVENTS = [
    {"messageStart": {"role": "assistant"}},
    {"contentBlockDelta": {"delta": {"text": "ship"}, "contentBlockIndex": 0}},
    {"contentBlockDelta": {"delta": {"text": "ping"}, "contentBlockIndex": 0}},
    {"messageStop": {"stopReason": "end_turn"}},
    {"metadata": {"usage": {"inputTokens": 31, "outputTokens": 2}}},
]
ANTHROPIC_REQUEST = {**logs.ANTHROPIC_BODY, "model": "gpt-4.1"}
ROWS = {
    "a run": ("langsmith", logs.langsmith_run()),
    "a run in text": ("langsmith", logs.as_text(logs.langsmith_run())),
    "a run of the OpenAI wrapper": (
        "langsmith",
        logs.langsmith_run(inputs=OPENAI_INPUTS, outputs=logs.completion()),
    ),
    "a run of a traced function": (
        "langsmith",
        logs.langsmith_run(inputs={"messages": logs.MESSAGES}, outputs={"output": logs.ANSWER}),
    ),
    "a run of messages": (
        "langsmith",
        logs.langsmith_run(outputs={"messages": [*logs.MESSAGES, *PLAIN]}),
    ),
    "a run in a run": (
        "langsmith",
        {
            **logs.langsmith_run(run_type="chain", id="root", inputs={}, outputs={}),
            "child_runs": [logs.langsmith_run()],
        },
    ),
    "Converse": ("bedrock", logs.converse()),
    "an event of CloudWatch": (
        "bedrock",
        {"timestamp": 1748852130000, "message": json.dumps(logs.converse())},
    ),
    "ConverseStream": (
        "bedrock",
        logs.converse(operation="ConverseStream", output={"outputBodyJson": CONVERSE_EVENTS}),
    ),
    "InvokeModel": ("bedrock", logs.invoke_model()),
    "a stream of InvokeModel": ("bedrock", logs.invoke_model(logs.ANTHROPIC_EVENTS)),
    "a request": ("helicone", logs.helicone()),
    "a request in text": ("helicone", logs.as_text(logs.helicone())),
    "Anthropic's request": (
        "helicone",
        logs.helicone(request_body=ANTHROPIC_REQUEST, response_body=logs.ANTHROPIC_ANSWER),
    ),
}


def trace(format_: str, row: dict[str, Any]) -> Trace:
    [call] = FORMATS[format_].calls(row)
    assert isinstance(call, LoggedCall), call
    assert first_task(call.task_names, call.tags) in ("triage", "seq")
    return make_trace(call, source="import:x", task="triage", model="gpt-4.1", at=5.0)


@pytest.mark.parametrize(("format_", "row"), ROWS.values(), ids=ROWS)
def test_every_shape_of_a_log_gives_the_same_call(format_: str, row: dict[str, Any]) -> None:
    assert [name for name, one in FORMATS.items() if one.fits(row)] == [format_]
    made = trace(format_, row)
    messages = json.loads(made.input_messages)
    assert [m["role"] for m in messages] == ["system", "user"]
    assert messages[0]["content"] == logs.SYSTEM
    assert made.input_hash == trace("helicone", logs.helicone()).input_hash
    [answer] = json.loads(made.output_messages or "")
    assert (answer["role"], answer["content"]) == ("assistant", logs.ANSWER)
    assert made.finish_reasons == ["stop"]
    assert int(made.start_time) == 1748852130
    assert (made.input_tokens, made.output_tokens) == (31, 2)
    assert json.loads(made.request_params)["temperature"] == 0.2


def test_a_platform_keeps_costs_users_and_models() -> None:
    made = trace("helicone", logs.helicone())
    assert (made.cost_usd, made.end_user, made.duration_ms) == (0.000078, "customer-7", 1500)
    assert trace("langsmith", logs.langsmith_run()).cost_usd == 0.000078
    [call] = FORMATS["bedrock"].calls(logs.converse())
    assert isinstance(call, LoggedCall)
    assert (call.request["model"], call.request["max_tokens"]) == ("gpt-4.1", 16)


def test_tools_of_bedrock_are_openais() -> None:
    spec = {
        "name": "track",
        "inputSchema": {"json": {"type": "object", "properties": {}}},
    }
    sent = logs.converse()["input"]
    sent["inputBodyJson"]["toolConfig"] = {"tools": [{"toolSpec": spec}], "toolChoice": {"any": {}}}
    use = {"toolUse": {"toolUseId": "call_1", "name": "track", "input": {}}}
    body = {"output": {"message": {"role": "assistant", "content": [use]}}}
    got = {"outputBodyJson": {**body, "stopReason": "tool_use"}}
    made = trace("bedrock", logs.converse(input=sent, output=got))
    assert json.loads(made.tool_definitions or "") == [logs.TOOL]
    assert json.loads(made.request_params)["tool_choice"] == "required"
    assert json.loads(made.output_messages or "")[0]["tool_calls"] == [logs.CALL]
    assert made.finish_reasons == ["tool_calls"]


def test_a_tool_call_in_a_logged_stream_is_assembled() -> None:
    block = {"type": "tool_use", "id": "call_1", "name": "track", "input": {}}
    events = [
        logs.ANTHROPIC_EVENTS[0],
        {"type": "content_block_start", "index": 0, "content_block": block},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": text},
            }
            for text in ("", "{", "}")
        ),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
    ]
    made = trace("bedrock", logs.invoke_model(events))
    assert json.loads(made.output_messages or "")[0]["tool_calls"] == [logs.CALL]


@pytest.mark.parametrize(
    ("format_", "row", "why"),
    [
        ("langsmith", logs.langsmith_run(run_type="tool"), "no model call"),
        ("langsmith", logs.langsmith_run(error="boom"), "the call failed"),
        ("langsmith", logs.langsmith_run(inputs={"prompts": ["Hi"]}), "object with a role"),
        ("langsmith", logs.langsmith_run(outputs={"result": "x", "ms": 3}), "in a wrapper"),
        ("langsmith", logs.langsmith_run(outputs=None), "it has no output"),
        ("bedrock", logs.converse(errorCode="ThrottlingException"), "the call failed"),
        ("bedrock", logs.converse(operation="ApplyGuardrail"), "not a chat completion"),
        ("bedrock", logs.converse(output={"outputBodyS3Path": "s3://b/k"}), "lies in S3"),
        ("bedrock", logs.converse(output={"outputBodyJson": {"generation": "x"}}), "in a wrapper"),
        ("bedrock", logs.invoke_model(logs.ANTHROPIC_EVENTS[:3]), "stream breaks off"),
        ("helicone", logs.helicone(response_status=500), "the call failed"),
        ("helicone", logs.helicone(response_body={"streamed_data": []}), "in a wrapper"),
        ("helicone", logs.helicone(response_body={"error": {"message": "x"}}), "the call failed"),
        ("helicone", logs.helicone(response_body=None), "it has no output"),
    ],
)
def test_a_row_that_makes_no_trace_has_its_reason(
    format_: str, row: dict[str, Any], why: str
) -> None:
    [found] = FORMATS[format_].calls(row)
    assert isinstance(found, Unusable), found
    assert why in str(found)
