"""Rows of each kind of log become calls, or have a reason why not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cli.imports.formats import FORMATS
from cli.imports.importing import Labels, teacher_names
from cli.imports.logged import LoggedCall, Unusable, first_task, make_trace
from cli.imports.values import as_cost, as_count, as_time, at_path
from store.chat.shape import fingerprint, input_hash
from store.records import Trace
from store.settings.config import parse_config
from tests.helpers import log_samples as logs

START, END = 1748852130.25, 1748852131.75
ROWS = {
    "openai-finetuning": logs.finetuning(),
    "openai-stored": logs.stored(),
    "litellm": logs.spend_log(),
    "langfuse": logs.observation(),
    "opentelemetry": logs.genai_batch(),
    "langsmith": logs.langsmith_run(),
    "bedrock": logs.converse(),
    "helicone": logs.helicone(),
    "sharegpt": logs.sharegpt(),
    "alpaca": logs.alpaca(),
}


def calls(format_: str, row: dict[str, Any]) -> list[LoggedCall | Unusable]:
    return list(FORMATS[format_].calls(row))


def call(format_: str, row: dict[str, Any]) -> LoggedCall:
    [found] = calls(format_, row)
    assert isinstance(found, LoggedCall), found
    return found


def trace(format_: str, row: dict[str, Any], **more: Any) -> Trace:
    found = call(format_, row)
    given_ = {"task": "triage", "model": "gpt-4.1", "source": f"import:{format_}", "at": 5.0}
    return make_trace(found, **{**given_, **more})


def reason(format_: str, row: dict[str, Any]) -> str:
    """The reason why a row makes no trace."""
    [found] = calls(format_, row)
    if isinstance(found, Unusable):
        return str(found)
    with pytest.raises(Unusable) as why:
        trace(format_, row)
    return str(why.value)


@pytest.mark.parametrize("format_", ROWS)
def test_each_format_is_recognised_and_no_other(format_: str) -> None:
    for row in (ROWS[format_], logs.as_text(ROWS[format_])):
        if format_ == "openai-finetuning" and row is not ROWS[format_]:
            continue  # these are JSON lines and nothing else
        assert [f.name for f in FORMATS.values() if f.fits(row)] == [format_]


@pytest.mark.parametrize("format_", ROWS)
def test_every_format_makes_what_the_proxy_would_have_logged(format_: str) -> None:
    made = trace(format_, ROWS[format_])
    request = {"messages": logs.MESSAGES, "model": "gpt-4.1"}
    assert made.fingerprint == fingerprint(request)
    assert made.input_hash == input_hash(logs.MESSAGES)
    assert json.loads(made.input_messages) == logs.MESSAGES
    [answer] = json.loads(made.output_messages or "")
    assert (answer["role"], answer["content"]) == ("assistant", logs.ANSWER)
    assert "weight" not in made.output_messages
    assert (made.served_by, made.route, made.reason) == ("teacher", "teacher", "imported")
    assert (made.outcome, made.status_code, made.finish_reasons) == ("complete", 200, ["stop"])
    assert made.source == f"import:{format_}"
    assert made.tool_definitions is None


def test_a_stored_completion_keeps_its_numbers() -> None:
    made = trace("openai-stored", logs.stored())
    assert (made.start_time, made.end_time) == (1738960610, 1738960610)
    assert (made.input_tokens, made.output_tokens, made.cached_tokens) == (31, 2, 16)
    assert made.response_model == "gpt-4.1-2025-04-14"
    assert made.end_user == "customer-7"
    params = json.loads(made.request_params)
    assert (params["temperature"], params["model"]) == (0.2, "gpt-4.1")
    assert not {"metadata", "choices", "input_user", "system_fingerprint"} & params.keys()


def test_stored_messages_may_be_the_apis_list() -> None:
    parts = [{"type": "text", "text": logs.ASKED}]
    kept = {"id": "m", "role": "user", "content": None, "content_parts": parts}
    row = logs.stored(messages={"object": "list", "data": [logs.MESSAGES[0], kept]})
    made = trace("openai-stored", row)
    assert json.loads(made.input_messages)[1] == {"role": "user", "content": parts}
    assert made.input_hash == input_hash(logs.MESSAGES)


@pytest.mark.parametrize("row", [logs.spend_log(), logs.as_text(logs.spend_log())])
def test_a_spend_log_keeps_times_cost_and_tags(row: dict[str, Any]) -> None:
    made = trace("litellm", row)
    assert (made.start_time, made.end_time, made.duration_ms) == (START, END, 1500)
    assert (made.input_tokens, made.output_tokens) == (31, 2)
    assert (made.cost_usd, made.provider_name) == (0.000078, "openai")
    found = call("litellm", row)
    assert first_task(found.task_names, found.tags) == "triage"
    assert made.api_key_hash == row["api_key"]


def test_an_older_spend_log_has_its_messages_in_their_own_column() -> None:
    row = logs.spend_log(messages=logs.MESSAGES, proxy_server_request={})
    assert trace("litellm", row).fingerprint == trace("litellm", logs.spend_log()).fingerprint


@pytest.mark.parametrize(
    ("changes", "task"),
    [
        ({}, "triage"),
        ({"request_tags": ["prod", "task:refunds"]}, "refunds"),
        ({"request_tags": []}, "support-app"),  # the alias of the key
        ({"request_tags": [], "metadata": {}}, None),
        ({"metadata": {"spend_logs_metadata": {"task": "orders"}}}, "orders"),
        ({"metadata": {"requester_metadata": {"task": "orders"}}}, "orders"),
        ({"metadata": {"spend_logs_metadata": {"task": "Not A Tag"}}}, "triage"),
    ],
)
def test_the_task_of_a_spend_log_comes_from_its_tags_or_metadata(
    changes: dict[str, Any], task: str | None
) -> None:
    found = call("litellm", logs.spend_log(**changes))
    assert first_task(found.task_names, found.tags) == task


def test_an_answer_from_litellms_cache_costs_nothing() -> None:
    assert trace("litellm", logs.spend_log(cache_hit="True", spend=0.0)).cost_usd == 0
    assert trace("litellm", logs.spend_log(spend=0.0)).cost_usd is None


@pytest.mark.parametrize(
    "row",
    [
        logs.observation(),
        logs.as_text(logs.observation()),
        logs.blob_observation(),
        logs.as_text(logs.blob_observation()),
        logs.observation(output=logs.ANSWER),
        logs.observation(output=[{"role": "assistant", "content": logs.ANSWER}]),
        logs.observation(output=logs.completion()),
        logs.observation(input={"messages": logs.MESSAGES}),
        logs.observation(usageDetails=None, usage={"promptTokens": 31, "completionTokens": 2}),
        logs.langfuse_trace(),
        logs.langfuse_trace(logs.observation(traceTags=None, tags=None)),
    ],
)
def test_every_form_of_langfuse_export_is_read(row: dict[str, Any]) -> None:
    made = trace("langfuse", row)
    assert json.loads(made.output_messages or "")[0]["content"] == logs.ANSWER
    assert (made.start_time, made.end_time) == (START, END)
    assert made.trace_id == trace("langfuse", logs.observation()).trace_id
    assert made.end_user == "customer-7"
    found = call("langfuse", row)
    assert first_task(found.task_names, found.tags) == "triage"
    if "model" in row or "provided_model_name" in row:
        assert (made.input_tokens, made.output_tokens) == (31, 2)
        assert made.cost_usd == 0.000078


def test_an_answer_in_json_stays_an_answer() -> None:
    for output in ({"category": "shipping"}, '{"category": "shipping"}'):
        made = trace("langfuse", logs.observation(output=output))
        [answer] = json.loads(made.output_messages or "")
        assert json.loads(answer["content"]) == {"category": "shipping"}


def test_the_turns_of_sharegpt_are_messages() -> None:
    row = logs.sharegpt(
        tools=json.dumps([logs.TOOL["function"]]),
        system=logs.SYSTEM,
        conversations=[
            {"from": "human", "value": logs.ASKED},
            {"from": "function_call", "value": json.dumps({"name": "track", "arguments": {}})},
            {"from": "observation", "value": "late"},
            {"from": "gpt", "value": "It is late."},
        ],
    )
    made = trace("sharegpt", row)
    call_ = {**logs.CALL, "id": "call_0"}
    assert json.loads(made.input_messages) == [
        *logs.MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call_]},
        {"role": "tool", "content": "late", "tool_call_id": "call_0"},
    ]
    assert json.loads(made.tool_definitions or "") == [logs.TOOL]


def test_an_instruction_and_its_input_are_one_prompt() -> None:
    made = trace("alpaca", logs.alpaca(input="Now.", history=[["Hi", "Hello"]]))
    assert [m["content"] for m in json.loads(made.input_messages)] == [
        logs.SYSTEM, "Hi", "Hello", f"{logs.ASKED}\nNow.",
    ]  # fmt: skip


CALLED = {"name": "track", "args": {}, "id": "call_1", "type": "tool_call"}


@pytest.mark.parametrize(
    "output",
    [
        {"role": "assistant", "content": "shipping", "additional_kwargs": {"refusal": None}},
        {"role": "assistant", "content": "shipping", "reasoning": "hm", "reasoning_details": []},
        {"role": "assistant", "content": "shipping", "some_new_key": {"x": 1}},
        {"role": "assistant", "content": [{"type": "text", "text": "shipping"}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "shipping"}]},
        {"type": "ai", "content": "shipping", "response_metadata": {"model_name": "gpt-4.1"}},
        {
            "lc": 1,
            "type": "constructor",
            "id": ["langchain", "schema", "messages", "AIMessage"],
            "kwargs": {"content": "shipping", "additional_kwargs": {}},
        },
        {"generations": [[{"text": "shipping", "message": {"content": "shipping"}}]]},
        [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "shipping"}],
        {"text": "shipping", "finishReason": "stop", "usage": {"inputTokens": 3}},
        {"type": "message", "role": "assistant", "stop_reason": "end_turn",
         "content": [{"type": "text", "text": "shipping"}], "usage": {"input_tokens": 3}},
        {"candidates": [{"content": {"role": "model", "parts": [{"text": "shipping"}]},
                         "finishReason": "STOP"}]},
        {"object": "response", "status": "completed", "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant",
             "content": [{"type": "output_text", "text": "shipping", "annotations": []}]}]},
        {"output": {"message": {"role": "assistant", "content": [{"text": "shipping"}]}},
         "stopReason": "end_turn"},
        {"message": {"role": "assistant", "content": "shipping"}, "done": True},
        {"choices": [{"message": {"role": "assistant", "content": "shipping"}}]},
        {"messages": [*logs.MESSAGES, {"role": "assistant", "content": "shipping"}]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", [lambda value: value, json.dumps], ids=["object", "text"])
def test_a_message_is_its_content_whatever_is_around_it(output: Any, form: Any) -> None:
    made = trace("langfuse", logs.observation(output=form(output)))
    [answer] = json.loads(made.output_messages or "")
    assert (answer["role"], answer["content"]) == ("assistant", "shipping")
    assert answer.keys() <= {"role", "content"}
    assert made.finish_reasons == ["stop"]


@pytest.mark.parametrize(
    "output",
    [
        {"role": "assistant", "content": "", "tool_calls": [CALLED]},
        {"type": "ai", "data": {"content": "", "tool_calls": [CALLED]}},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "call_1", "name": "track", "input": {}}]},
        {"role": "assistant", "parts": [
            {"type": "tool_call", "id": "call_1", "name": "track", "arguments": {}}]},
        {"text": "", "finishReason": "tool-calls",
         "toolCalls": [{"toolCallId": "call_1", "toolName": "track", "input": {}}]},
        {"role": "assistant", "content": "", "additional_kwargs": {"tool_calls": [logs.CALL]}},
        {"output": {"message": {"role": "assistant", "content": [
            {"toolUse": {"toolUseId": "call_1", "name": "track", "input": {}}}]}},
         "stopReason": "tool_use"},
        {"object": "response", "output": [
            {"type": "function_call", "call_id": "call_1", "name": "track", "arguments": "{}"}]},
    ],
)  # fmt: skip
def test_a_tool_call_is_openais_in_every_dialect(output: dict[str, Any]) -> None:
    made = trace("langfuse", logs.observation(output=output))
    [answer] = json.loads(made.output_messages or "")
    assert answer == {"role": "assistant", "content": None, "tool_calls": [logs.CALL]}
    assert made.finish_reasons == ["tool_calls"]


@pytest.mark.parametrize(
    "output",
    [
        {"result": "shipping", "latency": 3},
        {"answer": "shipping", "sources": []},
        {"response": {"body": {"choices": [{"message": {"content": "shipping"}}]}}},
        {"wrapped": {"role": "assistant", "content": "shipping"}},
        {"output": "shipping"},
        {"generated_text": "shipping"},
    ],
)
@pytest.mark.parametrize("form", [lambda value: value, json.dumps], ids=["object", "text"])
def test_an_unknown_wrapper_is_counted_and_not_learned(output: Any, form: Any) -> None:
    assert "in a wrapper" in reason("langfuse", logs.observation(output=form(output)))


def test_keys_of_a_wrapper_are_an_answer_where_the_request_asks_for_them() -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    format_ = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    asking = [
        {"messages": logs.MESSAGES, "response_format": format_},
        [{"role": "user", "content": 'Reply with {"answer": …}'}],
        [{"role": "user", "content": "Reply in JSON with your answer"}],
    ]
    for request in asking:
        made = trace("langfuse", logs.observation(input=request, output={"answer": "yes"}))
        [answer] = json.loads(made.output_messages or "")
        assert json.loads(answer["content"]) == {"answer": "yes"}


def test_input_messages_of_other_dialects_become_openais() -> None:
    parts = [
        {"role": "system", "parts": [{"type": "text", "content": logs.SYSTEM}]},
        {"type": "human", "content": [{"type": "text", "text": logs.ASKED, "cache_control": {}}]},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "call_1", "name": "track", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": [
                {"type": "text", "text": "late"}]}]},
    ]  # fmt: skip
    made = trace("langfuse", logs.observation(input=parts))
    assert json.loads(made.input_messages) == [
        *logs.MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [logs.CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "late"},
    ]


@pytest.mark.parametrize(
    ("logged", "ours"),
    [(None, "stop"), ("eos", "stop"), ("end_turn", "stop"), ("max_tokens", "length")],
)
def test_how_an_answer_ended_is_in_openais_words(logged: str | None, ours: str) -> None:
    answer = logs.completion()
    answer["choices"][0]["finish_reason"] = logged
    assert trace("litellm", logs.spend_log(response=answer)).finish_reasons == [ours]


@pytest.mark.parametrize(
    "mark",
    ["... (truncated 523 chars)", "...(truncated 1 chars)", "... (litellm_truncated skipped 9)"],
)
def test_an_answer_that_any_litellm_cut_off_is_left_out(mark: str) -> None:
    cut = logs.completion(f"The first half{mark}")
    assert "cut it off" in reason("litellm", logs.spend_log(response=cut))


def test_a_trace_gives_its_generations_and_nothing_else() -> None:
    other = logs.observation(id="obs-2", input=[{"role": "user", "content": "And then?"}])
    span = logs.observation(type="SPAN")
    found = calls("langfuse", logs.langfuse_trace(span, logs.observation(), other))
    assert [type(c) for c in found] == [LoggedCall, LoggedCall]
    assert reason("langfuse", logs.langfuse_trace(span)) == "a trace without a generation"


def test_an_answer_cut_off_by_its_token_limit_is_not_complete() -> None:
    row = logs.observation(modelParameters={"max_tokens": 2})
    assert trace("langfuse", row).finish_reasons == ["length"]


def test_tools_are_kept_and_calls_are_answers() -> None:
    row = logs.finetuning(tools=[logs.TOOL])
    row["messages"][-1] = {"role": "assistant", "content": None, "tool_calls": [logs.CALL]}
    made = trace("openai-finetuning", row)
    assert json.loads(made.tool_definitions or "") == [logs.TOOL]
    assert made.finish_reasons == ["tool_calls"]
    request = {"messages": logs.MESSAGES, "model": "gpt-4.1", "tools": [logs.TOOL]}
    assert made.fingerprint == fingerprint(request)


STUDENT = f"chatcmpl-{'0196f1a2b3c4' + '7abc' + '8def' + '0123456789ab'}"


@pytest.mark.parametrize(
    ("format_", "row", "why"),
    [
        ("sharegpt", logs.sharegpt(conversations=[{"from": "human", "value": "x"}]), "end with"),
        (
            "sharegpt",
            logs.sharegpt(conversations=[{"from": "gpt", "value": "x"}]),
            "nothing before",
        ),
        ("sharegpt", logs.sharegpt(conversations=[{"from": "narrator", "value": "x"}]), "a turn"),
        ("alpaca", logs.alpaca(output=""), "no output"),
        ("openai-finetuning", {"messages": []}, "no list of chat messages"),
        ("openai-finetuning", {"messages": logs.MESSAGES}, "does not end with the assistant"),
        ("openai-finetuning", {"messages": [logs.finetuning()["messages"][-1]]}, "nothing before"),
        ("openai-finetuning", logs.finetuning(weight=0), "weight is 0"),
        ("openai-finetuning", logs.finetuning(answer="  "), "the answer is empty"),
        ("openai-stored", logs.completion(), "it has no messages"),
        ("openai-stored", logs.stored(choices=[]), "the answer is empty"),
        ("openai-stored", logs.stored(messages=[{"content": "x"}]), "object with a role"),
        ("openai-stored", logs.stored(id=STUDENT), "a student of Understudy"),
        ("litellm", logs.spend_log(call_type="aembedding"), "not a chat completion"),
        ("litellm", logs.spend_log(status="failure"), "the call failed"),
        ("litellm", logs.spend_log(proxy_server_request={}), "store_prompts_in_spend_logs"),
        ("litellm", logs.spend_log(response={}), "store_prompts_in_spend_logs"),
        ("litellm", logs.spend_log(response="It is"), "not a chat completion"),
        (
            "litellm",
            logs.spend_log(response=logs.completion("a... (litellm_truncated skipped 9 chars.) b")),
            "MAX_STRING_LENGTH_PROMPT_IN_DB",
        ),
        ("litellm", logs.spend_log(response=logs.completion("redacted-by-litellm")), "redacted it"),
        ("langfuse", logs.observation(type="SPAN"), "not a generation"),
        ("langfuse", logs.observation(level="ERROR"), "the call failed"),
        ("langfuse", logs.observation(input="Say hello"), "no list of chat messages"),
        ("langfuse", logs.observation(output=None), "it has no output"),
        ("langfuse", logs.observation(output={"role": "user", "content": "x"}), "no output"),
        ("langfuse", logs.observation(output="redacted-by-litellm"), "redacted it"),
    ],
)
def test_an_unusable_row_has_its_reason(format_: str, row: dict[str, Any], why: str) -> None:
    assert why in reason(format_, row)


def test_the_same_call_has_the_same_id_and_another_call_another_one() -> None:
    first = trace("litellm", logs.spend_log())
    assert first.trace_id == trace("litellm", logs.as_text(logs.spend_log())).trace_id
    assert first.trace_id != trace("litellm", logs.spend_log(), task="other").trace_id
    assert first.trace_id != trace("litellm", logs.spend_log(), model="other").trace_id
    answered_otherwise = logs.completion("billing", id=logs.spend_log()["response"]["id"])
    assert first.trace_id != trace("litellm", logs.spend_log(response=answered_otherwise)).trace_id
    other_id = logs.spend_log(response=logs.completion(id="chatcmpl-2"))
    assert first.trace_id != trace("litellm", other_id).trace_id
    at = trace("openai-finetuning", logs.finetuning(), at=7.0)
    assert at.start_time == 7.0
    assert at.trace_id == trace("openai-finetuning", logs.finetuning()).trace_id


def test_secrets_in_a_logged_request_are_dropped() -> None:
    body = {"model": "gpt-4.1", "messages": logs.MESSAGES, "api_key": "sk-secret"}
    body["extra_headers"] = {"Authorization": "Bearer sk-secret"}
    made = trace("litellm", logs.spend_log(proxy_server_request=body))
    assert "sk-secret" not in repr(made)


@pytest.mark.parametrize(
    ("logged", "named"),
    [
        (None, "big"),
        ("big", "big"),
        ("gpt-4.1", "big"),
        ("openai/gpt-4.1", "big"),
        ("gpt-4.1-2025-04-14", "big"),
        ("openai/gpt-4.1-2025-04-14", "big"),
        ("gpt-4o", "gpt-4o"),  # two entries match it
        ("gpt-4.1-mini", "gpt-4.1-mini"),
        ("unknown", "unknown"),
    ],
)
def test_a_logged_model_gets_the_name_that_clients_use(logged: str | None, named: str) -> None:
    entries = {"big": "openai/gpt-4.1", "a": "openai/gpt-4o", "b": "azure/gpt-4o", "*": "openai/*"}
    config = parse_config(
        {
            "model_list": [
                {"model_name": name, "litellm_params": {"model": model}}
                for name, model in entries.items()
            ]
        }
    )
    assert teacher_names(config)(logged) == named


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (START, START),
        (START * 1000, START),
        (START * 1e6, START),
        ("1748852130250000000", START),
        ("1966-01-01", None),
        ("9999-12-31", None),
        (str(START), START),
        ("2025-06-02T08:15:30.250Z", START),
        ("2025-06-02 08:15:30.25", START),
        ("2025-06-02 08:15:30.250000+00", START),
        ("2025-06-02T10:15:30.250+02:00", START),
        ("yesterday", None),
        ("", None),
        (True, None),
        ([], None),
        (float("nan"), None),
        ("0001-01-01T00:00:00+14:00", None),
    ],
)
def test_times_are_read_in_every_notation(value: Any, seconds: float | None) -> None:
    assert as_time(value) == seconds


def test_counts_costs_and_paths_are_read_in_every_notation() -> None:
    assert [as_count(v) for v in (3, "3", 3.0, -1, 2**63, "x", True, None, 10**400)] == [
        3, 3, 3, None, None, None, None, None, None,
    ]  # fmt: skip
    assert [as_cost(v) for v in (0.5, "0.5", "$0.5", 0, -1, "inf", 1e12)] == [
        0.5,
        0.5,
        0.5,
        None,
        None,
        None,
        None,
    ]
    row = {"metadata": '{"deep": {"task": "triage"}}'}
    assert at_path(row, "metadata.deep.task") == "triage"
    assert at_path(row, "metadata.task.deep") is None
    assert at_path({"a.b": {"c.d": 1}, "a": {"b": 2}}, "a.b.c.d") == 1


# ---- arbitrary rows ----------------------------------------------------------------------------

INNER = {"role", "content", "choices", "message", "data", "task", "observations"}
names = st.sampled_from(sorted(INNER.union(*ROWS.values())))
anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["assistant", "GENERATION", "[{", '{"messages": 3}', "\ud83d", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


def changed(row: dict[str, Any], place: list[str], value: Any) -> dict[str, Any]:
    """The row with another value at a place, as far as the place is there."""
    if not place:
        return value if isinstance(value, dict) else row
    held = row.get(place[0])
    if len(place) > 1 and isinstance(held, dict):
        return {**row, place[0]: changed(held, place[1:], value)}
    return {**row, place[0]: value}


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.lists(st.tuples(st.lists(names, min_size=1, max_size=2), anything), max_size=3),
)
@example("langfuse", [(["input"], "[" * 5000)])
@example("openai-finetuning", [(["tools"], [{"a": 2**70}])])
@example("openai-stored", [(["choices"], [{"message": {"content": [1, {"text": "x"}]}}])])
@pytest.mark.slow
def test_no_row_raises_anything_but_unusable(
    format_: str, changes: list[tuple[list[str], Any]]
) -> None:
    row = ROWS[format_]
    for place, value in changes:
        row = changed(row, place, value)
    for found in FORMATS[format_].calls(row):
        if isinstance(found, LoggedCall):
            try:
                made = make_trace(found, source="import:x", task="triage", model="gpt-4.1", at=5.0)
            except Unusable:
                continue
            assert made.served_by == "teacher"
            assert made.end_time >= made.start_time
            assert msgspec.structs.replace(made) == made


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(names | st.text(max_size=8), anything, max_size=6))
@pytest.mark.slow
def test_no_value_makes_the_readers_of_values_raise(row: dict[str, Any]) -> None:
    for format_ in FORMATS.values():
        format_.fits(row)
        for found in format_.calls(row):
            assert isinstance(found, LoggedCall | Unusable)
    first_task([row], [row, *row.values()])
    assert Labels().teacher("x") == "x"
