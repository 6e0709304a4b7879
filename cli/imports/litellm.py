"""The spend logs of a LiteLLM proxy: rows of its table `LiteLLM_SpendLogs`.

As its API gives them, or exported from the database as JSON or CSV. They hold prompts
and answers where `general_settings.store_prompts_in_spend_logs` is on: the request in
`proxy_server_request` (older versions: `messages`), the answer in `response`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cli.imports.logged import Format, LoggedCall, Unusable
from cli.imports.openai import answers_of
from cli.imports.values import (
    as_cost,
    as_count,
    as_list,
    as_object,
    as_text,
    as_time,
    first_of,
    logged_time,
    parsed,
)
from store.jsontext import JsonMapping, JsonObject, to_json

CHAT_CALLS = ("", "completion", "acompletion")
# LiteLLM's own placeholders for text that it does not keep
CUT = re.compile(rb"litellm_truncated|\.\.\. ?\(truncated \d+ char")
REDACTED = b"redacted-by-litellm"


def is_spend_log(row: JsonMapping) -> bool:
    """Whether a row is one of LiteLLM's spend logs."""
    return "request_id" in row and bool({"startTime", "spend", "call_type"} & row.keys())


def spend_log(row: JsonMapping) -> Iterator[LoggedCall | Unusable]:
    """The call that a spend log is of."""
    body = as_object(row.get("proxy_server_request"))
    messages = as_list(row.get("messages")) or as_list(body.get("messages"))
    response = as_object(row.get("response"))
    metadata = as_object(row.get("metadata"))
    fault = _why_not(row, metadata, messages, response)
    if fault:
        yield Unusable(fault)
        return
    completion = answers_of(response)
    counts = {
        "input_tokens": completion["input_tokens"] or as_count(row.get("prompt_tokens")),
        "output_tokens": completion["output_tokens"] or as_count(row.get("completion_tokens")),
    }
    model = first_of(row, "model_group", "model")
    yield LoggedCall(
        request={**body, "messages": messages, "model": body.get("model") or model},
        **{**completion, **counts},
        call_id=completion["response_id"] or as_text(row.get("request_id")) or "",
        start_time=logged_time(row.get("startTime")),
        end_time=as_time(row.get("endTime")),
        first_chunk_at=as_time(row.get("completionStartTime")) if body.get("stream") else None,
        provider_name=as_text(row.get("custom_llm_provider")),
        cost_usd=cost_of(row.get("spend"), row.get("cache_hit")),
        api_key_hash=as_text(row.get("api_key")),
        end_user=as_text(row.get("end_user")) or as_text(body.get("user")),
        task_names=task_names(body, metadata),
        tags=[*as_list(row.get("request_tags")), key_alias(metadata)],
    )


def task_names(body: JsonMapping, metadata: JsonMapping) -> list[Any]:
    """Values that may name a request's task, before its tags: the client's own metadata first."""
    places = (
        body.get("metadata"),
        metadata.get("spend_logs_metadata"),
        metadata.get("requester_metadata"),
        metadata,
    )
    return [as_object(place).get("task") for place in places]


def key_alias(metadata: JsonMapping) -> Any:
    """The alias of the LiteLLM key: the task of requests whose other tags name none."""
    return metadata.get("user_api_key_alias")


def cost_of(spend: Any, cache_hit: Any) -> float | None:
    """The cost of a call by LiteLLM's log; 0 when its cache answered."""
    return 0.0 if str(cache_hit).lower() == "true" else as_cost(spend)


def _why_not(
    row: JsonMapping,
    metadata: JsonMapping,
    messages: list[Any],
    response: JsonObject,
) -> str:
    if (row.get("call_type") or "") not in CHAT_CALLS:
        return "not a chat completion"
    if "failure" in (row.get("status"), metadata.get("status")):
        return "the call failed"
    if not messages or not response:
        is_chat = not isinstance(parsed(row.get("response")), str) or row.get("response") == "{}"
        return (
            "LiteLLM kept no prompt or no answer: general_settings.store_prompts_in_spend_logs"
            if is_chat
            else "the answer is not a chat completion"
        )
    written = to_json([messages, response])
    if CUT.search(written):
        return "LiteLLM cut it off: raise MAX_STRING_LENGTH_PROMPT_IN_DB there"
    return "LiteLLM redacted it" if REDACTED in written else ""


FORMAT = Format("litellm", is_spend_log, spend_log)
