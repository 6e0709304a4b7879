"""Langfuse's exports: generations, or traces with or without their generations.

From its pages (JSON, CSV), its API, or its exports to blob storage, whose fields are written
`in_this_way` and whose input and output are JSON in text:
https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cli.imports.answers import answer_in
from cli.imports.logged import Format, LoggedCall, Unusable
from cli.imports.messages import openai_tools, request_in
from cli.imports.values import (
    as_cost,
    as_count,
    as_list,
    as_number,
    as_object,
    as_text,
    as_time,
    first_of,
    logged_time,
)
from store.jsontext import JsonMapping, to_json

CUT = b"<truncated due to size exceeding limit>"  # what its SDK leaves of large values
REDACTED = b"redacted-by-litellm"  # where LiteLLM wrote the log without its texts


def is_langfuse(row: JsonMapping) -> bool:
    """Whether a row is an observation or a trace of Langfuse."""
    context = {"traceId", "trace_id", "startTime", "start_time", "timestamp", "observations"}
    return "id" in row and "input" in row and "output" in row and bool(context & row.keys())


def langfuse(row: JsonMapping) -> Iterator[LoggedCall | Unusable]:
    """The generation that a row is, or the generations of the trace that it is."""
    nested = [o for o in as_list(row.get("observations")) if isinstance(o, dict)]
    generations = [o for o in nested if str(o.get("type") or "").upper() == "GENERATION"]
    if not nested:
        yield _call(row, row)
    elif generations:
        for generation in generations:
            yield _call({"traceId": row.get("id"), **generation}, row)
    else:
        yield Unusable("a trace without a generation")


def _call(row: JsonMapping, trace: JsonMapping) -> LoggedCall | Unusable:
    """`trace`: the row of the trace around it, or the same row."""
    if str(row.get("type") or "GENERATION").upper() != "GENERATION":
        return Unusable("not a generation")
    if str(row.get("level") or "").upper() == "ERROR":
        return Unusable("the call failed")
    try:
        request = request_in(row.get("input"))
        completion = answer_in(row.get("output"), request).fields()
    except Unusable as why:
        return why
    texts = to_json([request["messages"], completion["answers"]])
    if REDACTED in texts:
        return Unusable("LiteLLM redacted it")
    if CUT in texts:
        return Unusable("Langfuse cut it off")
    params = as_object(first_of(row, "modelParameters", "model_parameters"))
    usage = _usage(row)
    reasons = completion["finish_reasons"]
    limit = as_number(first_of(params, "max_completion_tokens", "max_tokens"))
    if limit and usage["output_tokens"] and usage["output_tokens"] >= limit and reasons == ["stop"]:
        reasons = ["length"]
    tools = openai_tools(first_of(row, "toolDefinitions", "tool_definitions"))
    start = logged_time(first_of(row, "startTime", "start_time", "timestamp"))
    latency = as_number(row.get("latency"))
    end = as_time(first_of(row, "endTime", "end_time"))
    if end is None and start is not None and latency is not None:
        end = start + latency
    metadata = [as_object(place.get("metadata")) for place in (row, trace)]
    counts = {name: value for name, value in usage.items() if value is not None}
    return LoggedCall(
        request={
            **params,
            **request,
            "tools": tools or request.get("tools"),
            "model": first_of(row, "model", "providedModelName", "provided_model_name"),
        },
        **{**completion, **counts, "finish_reasons": reasons},
        call_id=as_text(first_of(row, "traceId", "trace_id", "id")) or "",
        start_time=start,
        end_time=end,
        first_chunk_at=as_time(first_of(row, "completionStartTime", "completion_start_time")),
        cost_usd=_cost(row),
        end_user=as_text(
            first_of(row, "userId", "user_id") or first_of(trace, "userId", "user_id")
        ),
        task_names=[place.get("task") for place in metadata],
        fields=row,
        tags=[tag for place in (row, trace) for tag in _tags(place)],
    )


def _tags(place: JsonMapping) -> list[Any]:
    return [*as_list(place.get("tags")), *as_list(place.get("traceTags"))]


def _usage(row: JsonMapping) -> dict[str, int | None]:
    details = as_object(first_of(row, "usageDetails", "usage_details"))
    usage = as_object(row.get("usage"))
    return {
        "input_tokens": as_count(
            first_of(details, "input", "prompt_tokens")
            or first_of(usage, "input", "promptTokens", "prompt_tokens")
            or first_of(row, "promptTokens", "inputUsage", "inputTokens")
        ),
        "output_tokens": as_count(
            first_of(details, "output", "completion_tokens")
            or first_of(usage, "output", "completionTokens", "completion_tokens")
            or first_of(row, "completionTokens", "outputUsage", "outputTokens")
        ),
        "cached_tokens": as_count(
            first_of(details, "input_cached_tokens", "cache_read_input_tokens")
        ),
        "reasoning_tokens": as_count(
            first_of(details, "output_reasoning_tokens", "reasoning_tokens")
        ),
    }


def _cost(row: JsonMapping) -> float | None:
    details = as_object(first_of(row, "costDetails", "cost_details"))
    stated = first_of(row, "totalCost", "total_cost", "calculatedTotalCost")
    return as_cost(stated if stated is not None else details.get("total"))


FORMAT = Format("langfuse", is_langfuse, langfuse)
