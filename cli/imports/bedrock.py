"""Amazon Bedrock's model invocation logs, from S3 or CloudWatch.

Of Converse, and of InvokeModel with bodies of Anthropic's, Nova's or OpenAI's kind, streamed too.
https://docs.aws.amazon.com/bedrock/latest/userguide/model-invocation-logging.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cli.imports.answers import FAILED, NO_OUTPUT, UNKNOWN, unwrapped
from cli.imports.logged import Format, LoggedCall, Unusable
from cli.imports.messages import request_in
from cli.imports.values import (
    as_count,
    as_number,
    as_object,
    as_text,
    first_of,
    logged_time,
    parsed,
)
from store.jsontext import JsonMapping, JsonObject

_OPERATIONS = ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream")
_ROW = ("modelId", "input", "output")


def is_invocation(row: JsonMapping) -> bool:
    """Whether a row is an invocation log, or an event of CloudWatch with one in it."""
    inner = _inner(row)
    return inner.get("schemaType") == "ModelInvocationLog" or (
        all(name in inner for name in _ROW)
        and bool({"inputBodyJson", "inputContentType"} & as_object(inner["input"]).keys())
    )


def invocation(row: JsonMapping) -> Iterator[LoggedCall | Unusable]:
    """The call that a log is of."""
    try:
        yield _call(_inner(row))
    except Unusable as why:
        yield why


def _inner(row: JsonMapping) -> JsonMapping:
    return as_object(first_of(row, "message", "@message")) or row


def _call(row: JsonMapping) -> LoggedCall:
    if row.get("operation") not in (None, *_OPERATIONS):
        raise Unusable("not a chat completion")
    if row.get("errorCode"):
        raise Unusable(FAILED)
    sent, got = as_object(row.get("input")), as_object(row.get("output"))
    if "inputBodyS3Path" in sent or "outputBodyS3Path" in got:
        raise Unusable("its body lies in S3 as a file of its own")
    request = request_in(sent.get("inputBodyJson"))
    body = parsed(got.get("outputBodyJson"))
    if not body:
        raise Unusable(NO_OUTPUT)
    answer = unwrapped(_assembled(body) if isinstance(body, list) else body)
    if answer is None:
        raise Unusable(UNKNOWN)
    fields = answer.fields()
    start = logged_time(row.get("timestamp"))
    latency = as_number(as_object(as_object(body).get("metrics")).get("latencyMs"))
    metadata = as_object(row.get("requestMetadata"))
    model = as_text(row.get("modelId"))
    return LoggedCall(
        request={**request, "model": model.rpartition("/")[2] if model else None},
        **{
            **fields,
            "input_tokens": fields["input_tokens"] or as_count(sent.get("inputTokenCount")),
            "output_tokens": fields["output_tokens"] or as_count(got.get("outputTokenCount")),
            "cached_tokens": fields["cached_tokens"]
            or as_count(sent.get("cacheReadInputTokenCount")),
        },
        call_id=as_text(row.get("requestId")) or "",
        start_time=start,
        end_time=start + latency / 1000 if start is not None and latency is not None else None,
        provider_name="bedrock",
        task_names=[metadata.get("task")],
        fields={**row, "metadata": metadata},
    )


def _assembled(events: list[Any]) -> JsonObject:
    """The answer of a stream whose events were logged: Anthropic's, or Converse's."""
    message: JsonObject = {"role": "assistant", "content": []}
    blocks: dict[Any, JsonObject] = {}
    usage: JsonObject = {}
    whole = False
    for event in events:
        held = as_object(event)
        kind = held.get("type")
        if kind == "message_start":
            start = as_object(held.get("message"))
            message |= {name: start[name] for name in ("id", "model") if start.get(name)}
            usage |= as_object(start.get("usage"))
        usage |= as_object(held.get("usage") or as_object(held.get("metadata")).get("usage"))
        start = held if kind == "content_block_start" else as_object(held.get("contentBlockStart"))
        index = start.get("index", start.get("contentBlockIndex"))
        if block := as_object(start.get("content_block") or start.get("start")):
            blocks[str(index)] = {"text": "", "input": "", **_flat(block)}
        change = held if kind == "content_block_delta" else as_object(held.get("contentBlockDelta"))
        if delta := as_object(change.get("delta")):
            index = change.get("index", change.get("contentBlockIndex"))
            block = blocks.setdefault(str(index), {"type": "text", "text": "", "input": ""})
            written = as_text(delta.get("text"))
            block["text"] = f"{block.get('text') or ''}{written or ''}"
            part = delta.get("partial_json") or as_object(delta.get("toolUse")).get("input")
            block["input"] = f"{block.get('input') or ''}{part or ''}"
        ended = as_object(held.get("delta")).get("stop_reason") or as_object(
            held.get("messageStop")
        ).get("stopReason")
        if ended:
            message["stop_reason"], whole = ended, True
    message["content"] = [
        {**block, "input": block.get("input") or "{}"} for block in blocks.values()
    ]
    if not whole:
        raise Unusable("its stream breaks off")
    return {**message, "usage": usage}


def _flat(block: JsonObject) -> JsonObject:
    """The beginning of a block, with Converse's tool use as Anthropic has it."""
    use = as_object(block.get("toolUse"))
    if use:
        return {"type": "tool_use", "id": use.get("toolUseId"), "name": use.get("name")}
    return {**block, "input": ""}


FORMAT = Format("bedrock", is_invocation, invocation)
