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
