"""Rows of other logs, as their exports have them. Their content is made up."""

from __future__ import annotations

import json
from typing import Any

SYSTEM = "Name the department that the message is for, in one word."
ASKED = "My parcel should have been here on Monday."
ANSWER = "shipping"
MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ASKED}]
TOOL = {
    "type": "function",
    "function": {"name": "track", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "track", "arguments": "{}"}}


def finetuning(asked: str = ASKED, answer: str = ANSWER, **more: Any) -> dict[str, Any]:
    """https://platform.openai.com/docs/guides/supervised-fine-tuning"""
    return {
        "messages": [
            MESSAGES[0],
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answer, "weight": 1},
        ],
        **more,
    }


def completion(answer: str = ANSWER, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer, "refusal": None, "annotations": []}
    return {
        "id": "chatcmpl-AyPNinnUqUDYo9SAdA52NobMflmj2",
        "object": "chat.completion",
        "created": 1738960610,
        "model": "gpt-4.1-2025-04-14",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {
            "prompt_tokens": 31,
            "completion_tokens": 2,
            "total_tokens": 33,
            "prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        **more,
    }


def stored(**more: Any) -> dict[str, Any]:
    """https://platform.openai.com/docs/api-reference/chat/list, with the messages of each."""
    kept = [
        {"id": f"chatcmpl-1-{n}", "name": None, "content_parts": None, **message}
        for n, message in enumerate(MESSAGES)
    ]
    return {
        **completion(),
        "request_id": "req_ded8ab984ec4bf840f37566c1011c417",
        "tool_choice": None,
        "seed": 4944116822809979520,
        "top_p": 1.0,
        "temperature": 0.2,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "system_fingerprint": "fp_50cad350e4",
        "input_user": "customer-7",
        "service_tier": "default",
        "tools": None,
        "metadata": {"task": "triage"},
        "response_format": None,
        "messages": kept,
        **more,
    }


def spend_log(**more: Any) -> dict[str, Any]:
    """LiteLLM_SpendLogs as the proxy's API gives it, prompts stored."""
    body = {"model": "gpt-4.1", "messages": MESSAGES, "temperature": 0, "metadata": {"tags": []}}
    return {
        "request_id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "call_type": "acompletion",
        "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
        "spend": 0.000078,
        "total_tokens": 33,
        "prompt_tokens": 31,
        "completion_tokens": 2,
        "startTime": "2025-06-02T08:15:30.250000Z",
        "endTime": "2025-06-02T08:15:31.750000Z",
        "completionStartTime": "2025-06-02T08:15:31.750000Z",
        "model": "openai/gpt-4.1",
        "model_id": "m1",
        "model_group": "gpt-4.1",
        "custom_llm_provider": "openai",
        "api_base": "https://api.openai.com/v1",
        "user": "default_user_id",
        "metadata": {"user_api_key_alias": "support-app", "status": "success"},
        "cache_hit": "False",
        "cache_key": "Cache OFF",
        "request_tags": ["User-Agent: OpenAI", "triage"],
        "end_user": "customer-7",
        "messages": {},
        "response": completion(id="chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", model="gpt-4.1"),
        "proxy_server_request": body,
        "session_id": "s1",
        "status": "success",
        **more,
    }


def as_text(row: dict[str, Any]) -> dict[str, Any]:
    """The row as a database or a CSV file has it: objects and lists are JSON in text."""
    return {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in row.items()
    }


def observation(**more: Any) -> dict[str, Any]:
    """A generation as Langfuse's pages and its API give it."""
    return {
        "id": "obs-1",
        "traceId": "trace-1",
        "type": "GENERATION",
        "name": "classify",
        "startTime": "2025-06-02T08:15:30.250Z",
        "endTime": "2025-06-02T08:15:31.750Z",
        "completionStartTime": None,
        "model": "gpt-4.1-2025-04-14",
        "modelParameters": {"temperature": 0, "max_tokens": 16},
        "input": MESSAGES,
        "output": {"role": "assistant", "content": ANSWER},
        "metadata": {"feature": "inbox"},
        "usageDetails": {"input": 31, "output": 2, "total": 33, "input_cached_tokens": 16},
        "costDetails": {"input": 0.000062, "output": 0.000016, "total": 0.000078},
        "totalCost": 0.000078,
        "level": "DEFAULT",
        "statusMessage": None,
        "traceName": "inbox",
        "traceTags": ["prod EU", "triage"],
        "userId": "customer-7",
        "latency": 1.5,
        **more,
    }


def blob_observation(**more: Any) -> dict[str, Any]:
    """The same in an export to blob storage (`observations_v2/`)."""
    return {
        "id": "obs-1",
        "trace_id": "trace-1",
        "project_id": "p1",
        "environment": "default",
        "type": "GENERATION",
        "parent_observation_id": "",
        "start_time": "2025-06-02 08:15:30.250000",
        "end_time": "2025-06-02 08:15:31.750000",
        "name": "classify",
        "metadata": {"task": "triage"},
        "level": "DEFAULT",
        "input": json.dumps(MESSAGES),
        "output": json.dumps({"role": "assistant", "content": ANSWER}),
        "provided_model_name": "gpt-4.1",
        "model_parameters": '{"temperature":0}',
        "usage_details": {"input": 31, "output": 2},
        "cost_details": {"input": 0.000062},
        "total_cost": 0.000078,
        "user_id": "customer-7",
        "tags": [],
        **more,
    }


def langfuse_trace(*observations: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A trace as the API gives it, with what happened in it."""
    return {
        "id": "trace-1",
        "timestamp": "2025-06-02T08:15:30.250Z",
        "name": "inbox",
        "input": MESSAGES,
        "output": ANSWER,
        "metadata": {},
        "tags": ["triage"],
        "userId": "customer-7",
        "latency": 1.5,
        "observations": list(observations),
        **more,
    }


def otlp_value(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {"arrayValue": {"values": [otlp_value(one) for one in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": otlp_attributes(value)}}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}


def otlp_attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": otlp_value(value)} for name, value in values.items()]


GENAI_INPUT = [
    {"role": message["role"], "parts": [{"type": "text", "content": message["content"]}]}
    for message in MESSAGES
]
GENAI_OUTPUT = [
    {
        "role": "assistant",
        "parts": [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": ANSWER}],
        "finish_reason": "stop",
    }
]
GENAI = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4.1",
    "gen_ai.request.temperature": 0.2,
    "gen_ai.response.model": "gpt-4.1-2025-04-14",
    "gen_ai.response.id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.usage.input_tokens": 31,
    "gen_ai.usage.output_tokens": 2,
}


def span(
    values: dict[str, Any], events: list[tuple[str, dict[str, Any]]] | None = None, **more: Any
) -> dict[str, Any]:
    """A span in OTLP's JSON."""
    return {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "name": "chat gpt-4.1",
        "kind": 3,
        "startTimeUnixNano": "1748852130250000000",
        "endTimeUnixNano": "1748852131750000000",
        "attributes": otlp_attributes(values),
        "events": [
            {"timeUnixNano": "1748852131000000000", "name": name, "attributes": otlp_attributes(a)}
            for name, a in events or []
        ],
        "status": {},
        **more,
    }


def otlp(*spans: dict[str, Any]) -> dict[str, Any]:
    """A batch of spans, as the collector's file exporter writes it in a line."""
    resource = {"attributes": otlp_attributes({"service.name": "inbox", "task": "triage"})}
    scopes = [{"scope": {"name": "opentelemetry.instrumentation.openai"}, "spans": list(spans)}]
    return {"resourceSpans": [{"resource": resource, "scopeSpans": scopes}]}


def genai_batch() -> dict[str, Any]:
    return otlp(
        span(
            {
                **GENAI,
                "gen_ai.input.messages": json.dumps(GENAI_INPUT),
                "gen_ai.output.messages": json.dumps(GENAI_OUTPUT),
            }
        )
    )


def langchain(name: str, **kwargs: Any) -> dict[str, Any]:
    """A message as LangChain serializes it."""
    return {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", name],
        "kwargs": {"additional_kwargs": {}, "response_metadata": {}, **kwargs},
    }


LANGCHAIN_MESSAGES = [
    langchain("SystemMessage", content=SYSTEM, type="system"),
    langchain("HumanMessage", content=ASKED, type="human"),
]


def langsmith_run(**more: Any) -> dict[str, Any]:
    """A run of a model that LangChain called, as LangSmith's API gives it."""
    message = langchain("AIMessage", content=ANSWER, type="ai", id="run-1", tool_calls=[])
    generation = {
        "text": ANSWER,
        "generation_info": {"finish_reason": "stop", "logprobs": None},
        "type": "ChatGeneration",
        "message": message,
    }
    return {
        "id": "9d1b2d33-6a0c-4c39-9f4d-6a2a3f7c9d55",
        "trace_id": "6c1d9c6e-93f0-4a5e-8b1d-2f2a1c3f0d11",
        "dotted_order": "20250602T081530250000Z9d1b2d33-6a0c-4c39-9f4d-6a2a3f7c9d55",
        "parent_run_id": None,
        "session_id": "s1",
        "name": "ChatOpenAI",
        "run_type": "llm",
        "status": "success",
        "error": None,
        "start_time": "2025-06-02T08:15:30.250000",
        "end_time": "2025-06-02T08:15:31.750000",
        "first_token_time": None,
        "inputs": {"messages": [LANGCHAIN_MESSAGES]},
        "outputs": {
            "generations": [[generation]],
            "llm_output": {"token_usage": {"prompt_tokens": 31, "completion_tokens": 2}},
            "run": None,
            "type": "LLMResult",
        },
        "extra": {
            "invocation_params": {"model": "gpt-4.1", "temperature": 0.2, "_type": "openai-chat"},
            "metadata": {"ls_provider": "openai", "ls_model_name": "gpt-4.1", "feature": "inbox"},
        },
        "tags": ["seq:step:2", "triage"],
        "prompt_tokens": 31,
        "completion_tokens": 2,
        "total_cost": 0.000078,
        **more,
    }


def converse(**more: Any) -> dict[str, Any]:
    """A log of Bedrock's Converse."""
    return {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": "2025-06-02T08:15:30Z",
        "accountId": "123456789012",
        "identity": {"arn": "arn:aws:sts::123456789012:assumed-role/inbox/i-1"},
        "region": "eu-central-1",
        "requestId": "915a6a04-3f83-4c70-a277-7fbf7ea546b3",
        "operation": "Converse",
        "modelId": "arn:aws:bedrock:eu-central-1::foundation-model/gpt-4.1",
        "requestMetadata": {"task": "triage"},
        "input": {
            "inputContentType": "application/json",
            "inputBodyJson": {
                "system": [{"text": SYSTEM}],
                "messages": [{"role": "user", "content": [{"text": ASKED}]}],
                "inferenceConfig": {"maxTokens": 16, "temperature": 0.2},
            },
            "inputTokenCount": 31,
        },
        "output": {
            "outputContentType": "application/json",
            "outputBodyJson": {
                "output": {"message": {"role": "assistant", "content": [{"text": ANSWER}]}},
                "stopReason": "end_turn",
                "metrics": {"latencyMs": 1500},
                "usage": {"inputTokens": 31, "outputTokens": 2, "totalTokens": 33},
            },
            "outputTokenCount": 2,
        },
        **more,
    }


ANTHROPIC_BODY = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 16,
    "temperature": 0.2,
    "system": SYSTEM,
    "messages": [{"role": "user", "content": [{"type": "text", "text": ASKED}]}],
}
ANTHROPIC_ANSWER = {
    "id": "msg_bdrk_01",
    "type": "message",
    "role": "assistant",
    "model": "claude-3-haiku-20240307",
    "content": [{"type": "text", "text": ANSWER}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 31, "output_tokens": 2},
}
ANTHROPIC_EVENTS = [
    {"type": "message_start", "message": {**ANTHROPIC_ANSWER, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ship"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ping"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 2},
    },
    {"type": "message_stop"},
]


def invoke_model(answer: Any = ANTHROPIC_ANSWER, **more: Any) -> dict[str, Any]:
    """A log of Bedrock's InvokeModel with a body of Anthropic's kind."""
    return converse(
        operation="InvokeModel",
        input={"inputContentType": "application/json", "inputBodyJson": ANTHROPIC_BODY},
        output={"outputContentType": "application/json", "outputBodyJson": answer},
        **more,
    )


def helicone(**more: Any) -> dict[str, Any]:
    """A request as Helicone's export has it, with its bodies."""
    return {
        "request_id": "2b5f7c1e-5b0e-4d59-9a10-4f6f6c7fbb21",
        "request_created_at": "2025-06-02T08:15:30.250Z",
        "request_body": {"model": "gpt-4.1", "messages": MESSAGES, "temperature": 0.2},
        "request_path": "https://api.openai.com/v1/chat/completions",
        "request_user_id": "customer-7",
        "request_properties": {"Task": "triage", "Environment": "production"},
        "request_model": "gpt-4.1",
        "response_id": "a4e3",
        "response_created_at": "2025-06-02T08:15:31.750Z",
        "response_status": 200,
        "response_body": completion(),
        "response_model": "gpt-4.1-2025-04-14",
        "provider": "OPENAI",
        "delay_ms": 1500,
        "time_to_first_token": None,
        "prompt_tokens": 31,
        "completion_tokens": 2,
        "cost": 0.000078,
        **more,
    }


def sharegpt(**more: Any) -> dict[str, Any]:
    """A conversation as ShareGPT's exports and their many descendants have it."""
    turns = [
        {"from": "system", "value": SYSTEM},
        {"from": "human", "value": ASKED},
        {"from": "gpt", "value": ANSWER},
    ]
    return {"id": "identity_0", "conversations": turns, **more}


def alpaca(**more: Any) -> dict[str, Any]:
    return {"instruction": ASKED, "input": "", "output": ANSWER, "system": SYSTEM, **more}
