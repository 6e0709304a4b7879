"""Helicone's requests with their bodies: from its API, or of `@helicone/export --include-body`.

https://docs.helicone.ai/tools/export
"""

from __future__ import annotations

from collections.abc import Iterator

from cli.imports.answers import FAILED, NO_OUTPUT, UNKNOWN, unwrapped
from cli.imports.logged import Format, LoggedCall, Unusable
from cli.imports.messages import request_in
from cli.imports.values import (
    as_cost,
    as_count,
    as_number,
    as_object,
    as_text,
    as_time,
    first_of,
    logged_time,
    parsed,
)
from store.jsontext import JsonMapping


def is_request(row: JsonMapping) -> bool:
    """Whether a row is one of Helicone's requests."""
    return "request_body" in row and bool({"response_body", "request_created_at"} & row.keys())


def request(row: JsonMapping) -> Iterator[LoggedCall | Unusable]:
    """The call that a row is of."""
    try:
        yield _call(row)
    except Unusable as why:
        yield why


def _call(row: JsonMapping) -> LoggedCall:
    status = as_number(row.get("response_status"))
    if status is not None and not 200 <= status < 300:
        raise Unusable(FAILED)
    body = request_in(row.get("request_body"))
    got = parsed(row.get("response_body"))
    if not got:
        raise Unusable(NO_OUTPUT)
    answer = unwrapped(got)
    if answer is None:
        raise Unusable(UNKNOWN)
    fields = answer.fields()
    start = logged_time(row.get("request_created_at"))
    end = as_time(row.get("response_created_at"))
    delay = as_number(row.get("delay_ms"))
    if delay is not None and start is not None:
        end = start + delay / 1000
    first = as_number(row.get("time_to_first_token"))
    properties = as_object(first_of(row, "request_properties", "properties"))
    lower = {str(name).lower(): value for name, value in properties.items()}
    return LoggedCall(
        request={
            **body,
            "model": first_of(body, "model") or first_of(row, "request_model", "model"),
        },
        **{
            **fields,
            "input_tokens": fields["input_tokens"] or as_count(row.get("prompt_tokens")),
            "output_tokens": fields["output_tokens"] or as_count(row.get("completion_tokens")),
        },
        call_id=fields["response_id"] or as_text(row.get("request_id")) or "",
        start_time=start,
        end_time=end,
        first_chunk_at=start + first / 1000 if first and start is not None else None,
        provider_name=as_text(row.get("provider")),
        cost_usd=as_cost(first_of(row, "cost_usd", "costUSD", "cost")),
        end_user=as_text(first_of(row, "request_user_id", "user_id")),
        task_names=[lower.get("task")],
        fields={**row, "properties": properties},
    )


FORMAT = Format("helicone", is_request, request)
