"""LangSmith's runs: from its API, its SDK's list_runs, its pages (JSON lines, CSV) and data sets.

https://docs.langchain.com/langsmith/run-data-format
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cli.imports.answers import FAILED, answer_in
from cli.imports.logged import Format, LoggedCall, Unusable
from cli.imports.messages import openai_tools, request_in
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
from store.jsontext import JsonMapping


def is_run(row: JsonMapping) -> bool:
    """Whether a row is a run, or an example of a data set."""
    return "inputs" in row and bool({"run_type", "dotted_order", "outputs"} & row.keys())


def run(row: JsonMapping) -> Iterator[LoggedCall | Unusable]:
    """The model call that a run is, or those among the runs in it."""
    children = [one for one in as_list(row.get("child_runs")) if isinstance(one, dict)]
    if str(row.get("run_type") or "llm") == "llm":
        try:
            yield _call(row)
        except Unusable as why:
            yield why
    elif not children:
        yield Unusable("a run that is no model call")
    for child in children:
        yield from run(child)


def _call(row: JsonMapping) -> LoggedCall:
    if row.get("error") or str(row.get("status") or "success").lower() == "error":
        raise Unusable(FAILED)
    extra = as_object(row.get("extra"))
    params = as_object(extra.get("invocation_params") or row.get("invocation_params"))
    metadata = as_object(extra.get("metadata") or row.get("metadata"))
    inputs = as_object(row.get("inputs"))
    sole = parsed(next(iter(inputs.values()))) if len(inputs) == 1 else inputs
    request = {**params, **request_in(sole if isinstance(sole, list) else inputs)}
    answer = answer_in(_output(row.get("outputs")), request)
    model = first_of(params, "model", "model_name") or first_of(
        {**inputs, **metadata}, "ls_model_name", "model"
    )
    counts = {
        "input_tokens": as_count(row.get("prompt_tokens")),
        "output_tokens": as_count(row.get("completion_tokens")),
    }
    completion = answer.fields()
    return LoggedCall(
        request={**request, "model": model, "tools": openai_tools(request.get("tools"))},
        **{**completion, **{name: count for name, count in counts.items() if count}},
        call_id=as_text(row.get("id")) or "",
        start_time=logged_time(row.get("start_time")),
        end_time=as_time(row.get("end_time")),
        first_chunk_at=as_time(row.get("first_token_time")),
        provider_name=as_text(metadata.get("ls_provider")),
        cost_usd=as_cost(row.get("total_cost")),
        end_user=as_text(first_of(metadata, "user_id", "user")),
        task_names=[metadata.get("task")],
        tags=as_list(row.get("tags")),
        fields={**row, "metadata": metadata},
    )


def _output(outputs: Any) -> Any:
    """What a run gave: its SDK puts what is no object under `output`."""
    value = parsed(outputs)
    if isinstance(value, dict) and value.keys() == {"output"}:
        return value["output"]
    return value


FORMAT = Format("langsmith", is_run, run)
